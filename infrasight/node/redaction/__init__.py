"""Masking secrets in command lines and URLs, before they leave the node (docs/REDACTION.md).

    redactor.py      columns in, columns without secrets out
    rules.py         what the table of secrets is made of
    shapes.py        secrets told by what they look like
    options.py       secrets told by the option or the program that they follow
    command_line.py  a command line taken apart
    shell_words.py   what a shell is given, taken apart
"""

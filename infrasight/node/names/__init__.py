"""What things are called that the kernel knows by number.

    users.py     users and groups
    dns.py       messages of name servers
    answers.py   the names that led to addresses, by the answers that were seen here
    reverse.py   what name servers call an address that nobody was seen to ask for
"""

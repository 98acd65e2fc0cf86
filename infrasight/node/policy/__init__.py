"""What is to be traced and masked, as the configuration file says (docs/FILTERS.md).

    policy.py   the rules
    file.py     the file as rules
    toml.py     its tables, every key looked at
    values.py   what people write, as the kernel has it: names of users, addresses, paths of cgroups
"""

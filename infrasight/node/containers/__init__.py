"""Which container something happened in, and what that container is.

    cgroups.py       the table of cgroups, told by the kernel and found in the hierarchy
    hierarchy.py     where cgroups are mounted, and which there are
    containment.py   the container that the path of a cgroup tells of
    inquirer.py      has the runtimes tell of their containers
    watch.py         has the API server of Kubernetes tell of pods
    table.py         what they told
    inventory.py     the same as rows of the table `container`
    columns.py       the columns of all that
"""

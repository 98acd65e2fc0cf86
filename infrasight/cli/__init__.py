"""The command line, for people and scripts.

Belongs here: `infrasight` and its commands, and running node and server as child processes. Everything else goes through the server's API,
never around it to the store. Modules are imported when a command needs them, so that a question is answered quickly.
"""

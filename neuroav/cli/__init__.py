"""The command line: each command parses, calls one function of the library, returns one result.

``group`` holds the table of commands, ``common`` the frame every command runs in (results, errors,
exit codes), ``progress`` the bars. Command modules import their work inside the command's body, so
that ``neuroav --help`` is quick. Environment variables are read here and nowhere else.
"""

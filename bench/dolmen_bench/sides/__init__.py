"""The sides of a comparison. Each is started, says what it is and which processes it consists of, and is ended.

A side has: name, address (where its clients connect), settings (what a reader must know), and the methods
start(), version(), pids() (the processes whose time and memory count), beside() (processes of its own that only
watch, counted apart), end(). Each runs one thread that serves, on the core of the proxy.
"""

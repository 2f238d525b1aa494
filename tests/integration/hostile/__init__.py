"""Clients that mean no good, or speak another protocol, against real servers.

What they cost is measured where it matters: the memory of the server's process, and how long another client waits.
"""

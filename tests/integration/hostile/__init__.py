"""Clients that mean no good, or speak another protocol, against real servers.

Their cost is measured as the memory of the server's process, and as the time that another client waits.
"""

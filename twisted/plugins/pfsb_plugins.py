"""The names by which Twisted finds pfsb: `twistd pfsb`, and the applications it can run.

Twisted imports this file whenever any program looks for any plugin, so it imports nothing that takes time. An
application from outside of pfsb needs such a file of its own, in a `twisted/plugins` folder on the Python path.
"""

from twisted.application.service import ServiceMaker

from pfsb.applications.interfaces import ApplicationMaker

pfsb = ServiceMaker(
    "pfsb", "pfsb.service.start", 'A replicated state machine server, after "Paxos for System Builders".', "pfsb"
)

chat = ApplicationMaker("chat", "A log that everyone reads in the same order.", "pfsb.applications.chat", "Chat")
lock = ApplicationMaker("lock", "Locks, granted first come, first served.", "pfsb.applications.lock", "Lock")
kv = ApplicationMaker("kv", "Keys and their values.", "pfsb.applications.key_value", "KeyValue")
instances = ApplicationMaker(
    "instances", "Agreements on one value each, for teaching labs.", "pfsb.applications.instances", "Instances"
)

"""The linearizability checker: is there one order of the operations that explains every answer?

Theory of operation. `History` collects the commands of all clients, each with its call, its return, its answer and its
fate. At the end `models` takes the history apart into independent sub-histories: one for each key and each lock, one
for the chat, and one for the revisions. Each sub-history has a specification, a small state machine that says whether
an answer fits a state. `search` looks for an order in which all answers fit. `checker` reports the verdict, and names
the first answer that no order explains.

* `history`: collects commands and answers during a run. `operations`: the input of a check.
* `models`, `register_model`, `lock_model`, `chat_model`: the specifications.
* `texts`: keys and values, which the key-value store has as bytes, in text.
* `search`: the search for an order. `checker`: its rules, the verdict and its explanation.

The specifications follow docs/protocol.rst and share no code with the applications, except the reading of arguments
and a hash function. A search that takes too many steps has the verdict undecided; runs count these, and do not fail
for them. Nothing here imports other packages of the simulator.
"""

"""A fuzzer: it changes real input of every kind at random, and looks for input that a server does not bear.

Theory of operation. A *target* is one reader of bytes: a decoder, a port of a server, a data directory, or a whole
cluster that is told changed messages. It brings *seeds*, real input that was captured or written down, and says what is
wrong: any exception that it does not document, bytes that are believed although they were changed, servers that differ.
A *campaign* gives each target the same share of the time. It changes seeds and earlier inputs (`mutation`), and keeps
an input that reaches lines of the target that no earlier one has reached (`coverage`), so that later inputs get
further. Inputs share the state of the target, since a server must bear them one after the other; each *round* begins
with a new state. An input that fails is written to a file together with those before it that it needs, and the command
line that repeats it is printed.

Files: `campaign` (the loop and its reports), `watchdog` (inputs that take too much time or memory), `finding` (failing
inputs as files), `fuzz_command` (`pfsb fuzz`), `all_targets` (the table of targets), and the targets:
`snapshot_targets` (snapshots), `frame_targets` (frames, bodies, batches, payloads), `stream_targets` (frames of a
connection), `file_targets` (data directories, logs, configurations), `port_targets` (line protocol, RESP, HTTP),
`client_targets` (what clients read), `cluster_targets` (a cluster, told well-formed messages that are wrong).
`small_cluster` is the cluster whose frames become seeds, and the one that is told those messages.
"""

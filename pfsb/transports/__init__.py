"""Transport: messages between servers, over a network that loses, delays, repeats and reorders them.

In: messages from the protocol by `send`, and frames from the network. Out: frames to the network, and `receive(sender,
identity, messages)` for each frame that was found right. The interface is `ITransport`; docs/internals/formats.rst
defines the bytes.

Rules that the protocol rests on:

* a frame is handed up as a whole or refused as a whole; no handler meets a value outside its range;
* damaged frames are refused, and so are those of another cluster, of another membership, of unknown senders, and of
  servers that pass other slots; with a secret also frames that no server of this cluster has made, and repeated ones;
  without a secret also frames that do not come from the address of their sender;
* nothing else is promised: any frame may be lost, late, or (without a secret) repeated. Frames are not encrypted;
* `send` never raises and never blocks, and nothing is handed up from inside `send`, so turns never nest.

This package knows the messages of the protocol, but neither their meaning nor its state. Whether the storage identity
in a frame is the one known under the sender's id is for the protocol to judge (`pfsb.paxos.storage_identity`).

* `wire`: messages as bytes, with all checks of what comes in;
* `frames`: header and body of a frame; `replay`: refuses keyed frames that were received before;
* `links`: all links of one server, over any network that can send a frame to a peer (`FrameSender`);
* `peer_transport`: the transport of real servers, over one network or two; the simulator has a network in memory;
* `udp`: the network of datagrams;
* `tcp`: the network of streams; `outgoing_stream`, `incoming_streams` and `pieces_of_stream` are its parts, and `tls`,
  with `stream_security`, is its encryption;
* `secret_watch`: secrets that change while servers run;
* `path`: the path to one peer, and what the modules `notices`, `path_size`, `path_round_trip`, `outgoing_parts` and
  `reassembly` do for it: frames that are larger than a datagram travel in parts;
* `fragmentation`: keeps the system from sending IP fragments;
* `names`: the addresses of the servers, which are looked up while they run;
* `faults`: loss, delay and cuts on command (FAULT);
* `pending_calls`: delayed calls that are cancelled together.
"""

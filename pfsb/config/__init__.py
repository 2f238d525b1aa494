"""The configuration file of a cluster.

In comes the path of a YAML file, out comes a frozen `Config`, or one `ConfigError` that names the file, the key and a
correct value. The package does nothing but read files; it opens no sockets, and resolves no host names.

    config        the values with their types, defaults and limits; `load`
    addresses     addresses of peers, endpoints for clients, and the check that no two servers share one
    yaml_file     YAML values with their place in the file, for messages about them
    secret_file   the secrets of the servers; `token_file`: the tokens of clients
    exposure      whether machines other than the servers' may speak for them
    client_places where clients reach a server, in words
    sample        the configuration that `pfsb init` writes
"""

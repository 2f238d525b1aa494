"""The configuration file of a cluster.

In comes the path of a YAML file, out comes a frozen `Config`, or one `ConfigError` that names the file, the key and a
correct value. The package reads files only; it opens no sockets, and resolves no host names.

    config        the values with their types, defaults and limits; `load`
    addresses     addresses of peers and endpoints of clients, and whether two servers would collide
    yaml_file     YAML values with their place in the file, for messages about them
"""

"""The command line: `dropserve`, and the subcommands that need no server on this machine."""

"""The `turnout` command's own subcommands; other packages add theirs through the entry-point group turnout.commands."""

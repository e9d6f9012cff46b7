"""The shipped recipes, as TOML; a package only so that they are installed. Read by `cascade.settings`."""

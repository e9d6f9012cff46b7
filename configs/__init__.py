"""The shipped recipes, as TOML; a package only so that they are installed beside the code. Read by `cascade.settings`."""

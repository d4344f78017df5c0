"""The declarations of the commands, a module each; `registry` has all of them."""

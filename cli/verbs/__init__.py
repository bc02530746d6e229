"""One file per verb; each is imported only when its verb is called, so that `--help` stays quick."""

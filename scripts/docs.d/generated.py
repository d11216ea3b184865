"""Files whose content follows from others."""


def settle(file, shown, wanted, check, complaint):
    """Writes what a file has to show, or with `check` returns the complaint, in a list, where it shows anything else."""
    if shown == wanted:
        return []
    if check:
        return [complaint]
    file.parent.mkdir(exist_ok=True)
    file.write_text(wanted)
    return []

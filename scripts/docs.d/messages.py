def update(check):
    return []

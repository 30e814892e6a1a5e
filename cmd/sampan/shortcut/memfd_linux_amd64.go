package shortcut

const sysMemfdCreate = 319

package shortcut

const sysMemfdCreate = 279

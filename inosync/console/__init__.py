"""How people see a running inosync, and later steer it."""

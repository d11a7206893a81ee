"""`ros2 vlm`: the words of `edge-vlm`, for a node that runs.

Found by the `ros2` command through the entry point `ros2cli.command` (pyproject.toml), which looks
for a class with the methods of `ros2cli.command.CommandExtension`; nothing of ros2cli is imported.
"""

from typing import Any

from launch import LaunchDescriptionEntity

class Node(LaunchDescriptionEntity):
    def __init__(self, *, executable: str, package: str | None = None, **arguments: Any) -> None: ...

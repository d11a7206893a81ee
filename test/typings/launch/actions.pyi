from collections.abc import Callable, Sequence

from launch.launch_description_sources import PythonLaunchDescriptionSource

from launch import LaunchContext, LaunchDescriptionEntity

class DeclareLaunchArgument(LaunchDescriptionEntity):
    def __init__(
        self,
        name: str,
        *,
        default_value: str | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
    ) -> None: ...

class IncludeLaunchDescription(LaunchDescriptionEntity):
    def __init__(self, launch_description_source: PythonLaunchDescriptionSource) -> None: ...

class OpaqueFunction(LaunchDescriptionEntity):
    def __init__(
        self, *, function: Callable[[LaunchContext], Sequence[LaunchDescriptionEntity] | None]
    ) -> None: ...

class SetEnvironmentVariable(LaunchDescriptionEntity):
    def __init__(self, name: str, value: str) -> None: ...

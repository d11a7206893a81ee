"""`qos_overrides.<topic>.<publisher or subscription>.<policy>`, as rclpy has them.

rclpy declares these parameters when it makes the publisher or the subscription, without ranges,
and refuses with a traceback what it does not know. Here they are declared before, by the rules of
all other parameters; rclpy finds them and applies them.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final, Literal

from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.declaring import Rule, SettingsError, shown

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.qos import QoSProfile

    from edge_vlm_ros.nodes.declaring import ParameterTable

Entity = Literal['publisher', 'subscription']

MAX_DEPTH: Final = 100_000
_POLICIES: Final = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
_WORDS: Final = {
    'history': tuple(qos.HISTORIES),
    'reliability': tuple(qos.RELIABILITIES),
    'durability': tuple(qos.DURABILITIES),
}
"""None that leaves the choice to the middleware, as system_default does."""


def options(entity_id: str = '') -> QoSOverridingOptions:
    """Return what tells rclpy which policies may be overridden.

    Args:
        entity_id: Tells two publishers or subscriptions of one topic apart.
    """
    return QoSOverridingOptions(_POLICIES, entity_id=entity_id or None)


class Overrides:
    """The overriding parameters of one publisher or subscription.

    Args:
        parameters: Where they are declared.
        topic: Before remapping.
        entity: What it is.
        entity_id: As for `options`.
    """

    def __init__(
        self, parameters: ParameterTable, topic: str, entity: Entity, entity_id: str = ''
    ) -> None:
        self._parameters = parameters
        self._topic = parameters.resolve_topic(topic)
        self._entity = entity
        self._id = entity_id

    def name(self, policy: str) -> str:
        """Return the name of a policy's parameter, as rclpy forms it."""
        suffix = f'_{self._id}' if self._id else ''
        return f'qos_overrides.{self._topic}.{self._entity}{suffix}.{policy}'

    @property
    def is_declared(self) -> bool:
        """Whether there are such parameters already."""
        return self._parameters.is_declared(self.name('depth'))

    def declare(self, policy: str, value: Any) -> Any:
        """Declare one parameter with its default; return its value.

        Raises:
            SettingsError: What was given for it at the start does not fit.
        """
        return self._parameters.declare(
            self.name(policy),
            value,
            f'{policy} of the {self._entity} of {self._topic}.',
            read_only=True,
            **_limits(policy),
        )

    def declare_as(self, policy: str, own: str, default: Any, description: str) -> Any:
        """Declare a parameter of ours that means the same as an override; return the value.

        Args:
            policy: Of the override.
            own: The other parameter's name.
            default: Of both.
            description: Of the other one.

        Raises:
            SettingsError: Both were given at the start, and differ; or one does not fit.
        """
        override = self.name(policy)
        given = self._parameters.given(override)
        if given is not None:
            default = Rule(override, default, **_limits(policy)).taken(given)
        value = self._parameters.declare(
            own, default, description, read_only=True, **_limits(policy)
        )
        if given is not None and value != default:
            raise SettingsError(
                f'{own} is {shown(value)} and {override} {shown(default)}, and both mean the '
                'same: set one of them'
            )
        return self.declare(policy, value)


def create_publisher(
    node: Node, parameters: ParameterTable, kind: type[Any], topic: str, profile: QoSProfile
) -> Publisher[Any]:
    """Create a publisher whose QoS can be overridden.

    Args:
        node: Whose.
        parameters: Of the node.
        kind: The message type.
        topic: Before remapping.
        profile: Its QoS, unless overridden; stays as it is.

    Raises:
        SettingsError: An override does not fit.
    """
    overrides = Overrides(parameters, topic, 'publisher')
    for policy, value in _values(profile).items():
        overrides.declare(policy, value)
    return node.create_publisher(
        kind,
        topic,
        copy(profile),  # rclpy writes the overrides into it.
        event_callbacks=qos.no_publisher_events(),
        qos_overriding_options=options(),
    )


def _values(profile: QoSProfile) -> dict[str, Any]:
    """Return the policies of a profile as parameters have them."""
    values: dict[str, Any] = {name: getattr(profile, name).name.lower() for name in _WORDS}
    return {**values, 'depth': profile.depth}


def _limits(policy: str) -> dict[str, Any]:
    """Return what a policy takes, as `ParameterTable.declare` has it."""
    if policy == 'depth':
        return {'low': 1, 'high': MAX_DEPTH}
    return {'choices': _WORDS[policy]}

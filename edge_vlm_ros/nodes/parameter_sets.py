"""Parameters that are set while a node runs: a set holds as a whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService

from edge_vlm_ros.nodes.declaring import ParameterTable, SettingsError, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rcl_interfaces.srv import SetParameters


class ParameterSets(Node):
    """A node whose parameters are judged by their table, and never set in part.

    A set is judged before anything changes: each value by its rule, then all together. What a
    fixed parameter is already may be set again, so that `ros2 param load` takes back what `ros2
    param dump` wrote. rclpy's own callback for this comes after it has refused whole numbers for
    doubles, and Humble has none that comes before.

    Args:
        name: As for `rclpy.node.Node`.
        options: Likewise.
    """

    def __init__(self, name: str, **options: Any) -> None:
        has_services = options.pop('start_parameter_services', True)
        super().__init__(name, start_parameter_services=False, **options)
        self.parameters = ParameterTable(self)
        if has_services:
            self._set_service = _SetService(self)

    def set_parameters(
        self, parameter_list: Sequence[Parameter[Any]]
    ) -> list[SetParametersResult]:
        """Set parameters, all or none; return a result for each."""
        try:
            result = self._set(parameter_list)
        except SettingsError as error:
            wrong, reason = error.parameter, str(error)
            others = f'not set, for {wrong} of the same set was refused' if wrong else reason
            return [
                SetParametersResult(reason=reason if each.name == wrong else others)
                for each in parameter_list
            ]
        return [result for _ in parameter_list]

    def set_parameters_atomically(
        self, parameter_list: Sequence[Parameter[Any]]
    ) -> SetParametersResult:
        """Set parameters, all or none; a refusal's reason names what is wrong."""
        try:
            return self._set(parameter_list)
        except SettingsError as error:
            return SetParametersResult(reason=str(error))

    def _set(self, given: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Set parameters once all of them are judged.

        Raises:
            SettingsError: One is wrong; nothing was changed.
        """
        changes = self._judged(given)
        if not changes:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changes)

    def _judged(self, given: Sequence[Parameter[Any]]) -> list[Parameter[Any]]:
        """Return what is to change, in the parameters' own types.

        Raises:
            SettingsError: It cannot.
        """
        by_name = {parameter.name: parameter for parameter in given}
        missing = [name for name in by_name if not self.has_parameter(name)]
        if missing:
            hint = self.parameters.unknown(missing[0])
            raise SettingsError(f'there is no parameter {hint}', missing[0])
        values = self.parameters.judge({n: p.value for n, p in by_name.items()})
        changes = []
        for name, value in values.items():
            if self.describe_parameter(name).read_only:
                present = self.get_parameter(name).value
                if value != present:
                    raise SettingsError(
                        f'{name} is fixed while the node runs: it is {shown(present)}, and '
                        f'{shown(value)} would have to be set at the start',
                        name,
                    )
            elif value is by_name[name].value:
                changes.append(by_name[name])  # An empty list keeps its type so.
            else:
                changes.append(Parameter(name, value=value))
        return changes


class _SetService(ParameterService):
    """rclpy's services; `set_parameters` hands all of a request to the node at once.

    rclpy's own hands on one by one, so that the first half of a set holds when the second is
    refused.
    """

    def _set_parameters_callback(
        self, request: SetParameters.Request, response: SetParameters.Response
    ) -> SetParameters.Response:
        node = self._get_node()
        parameters = [Parameter.from_parameter_msg(each) for each in request.parameters]
        response.results = node.set_parameters(parameters)
        return response

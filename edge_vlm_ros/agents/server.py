"""The tools as a server of the Model Context Protocol, over standard input and output.

The one module that imports `mcp` (the extra `mcp`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.stdio import stdio_server
from pydantic import Field

from edge_vlm_ros.agents.toolbox import Question, Toolbox
from edge_vlm_ros.core import NS_PER_S, EdgeVlmError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

INSTRUCTIONS = """\
These tools look through a robot's cameras and ask a vision-language model on the robot about \
what they see. Every answer names the frames it is about, with stamp and age in seconds: an old \
frame shows the past. The model is small: ask short, concrete questions, give `choices` where the \
answer decides something, and look at a picture yourself where it matters."""

Cameras = Annotated[list[str] | None, Field(description='names of cameras; none: the first')]
Seconds = Annotated[
    float, Field(description='a clip of so many last seconds; 0: the newest frame', ge=0, le=600)
]
Choices = Annotated[
    list[str] | None, Field(description='the answer is one of these; none: free text')
]


def build(toolbox: Toolbox) -> MCPServer[Any]:
    """Make the server.

    Args:
        toolbox: Open.
    """
    server: MCPServer[Any] = MCPServer('edge-vlm', instructions=INSTRUCTIONS, log_level='WARNING')
    _add_questions(server, toolbox)
    _add_watch(server, toolbox)
    return server


def _add_questions(server: MCPServer[Any], toolbox: Toolbox) -> None:
    @server.tool()
    async def cameras() -> dict[str, Any]:
        """List the robot's cameras and named questions, and say whether the model is ready."""
        with _told_to_the_agent():
            return await toolbox.facts()

    @server.tool()
    async def ask(
        question: str,
        cameras: Cameras = None,
        last_seconds: Seconds = 0.0,
        choices: Choices = None,
        session_id: str = '',
    ) -> dict[str, Any]:
        """Ask about what the cameras see now.

        `session_id` goes on with a conversation: any name of yours.
        """
        asked = Question(
            question,
            tuple(cameras or ()),
            last_seconds,
            tuple(choices or ()),
            session_id,
        )
        with _told_to_the_agent():
            return await toolbox.ask(asked)

    @server.tool()
    async def describe(preset: str = '', cameras: Cameras = None) -> dict[str, Any]:
        """Ask one of the robot's named questions; with no name the first one."""
        with _told_to_the_agent():
            return await toolbox.describe(preset, tuple(cameras or ()))

    @server.tool(structured_output=False)
    async def look(camera: str = '') -> list[Any]:
        """Return the newest picture of a camera, as JPEG, with its stamp."""
        with _told_to_the_agent():
            picture = await toolbox.look(camera)
        stamp = picture.stamp_ns / NS_PER_S
        return [Image(data=picture.jpeg, format='jpeg'), f'stamp {stamp:.3f} s']


def _add_watch(server: MCPServer[Any], toolbox: Toolbox) -> None:
    @server.tool()
    async def watch(  # noqa: PLR0913, PLR0917 (a tool's arguments)
        question: str,
        ctx: Context[Any, Any],
        choices: Choices = None,
        when: Annotated[
            list[str] | None, Field(description='the choices that mean the event; none: the first')
        ] = None,
        cameras: Cameras = None,
        last_seconds: Seconds = 0.0,
        timeout_s: Annotated[float, Field(description='give up after so long')] = 60.0,
        period_s: Annotated[float, Field(description='from one look to the next')] = 1.0,
    ) -> dict[str, Any]:
        """Wait until something happens: ask again and again, yes or no unless choices are given.

        `event` is true as soon as two of the last three answers mean it, with the frames of the
        last one; false when the time is over.
        """

        async def on_look(number: int, seen: str) -> None:
            await ctx.report_progress(number, message=f'look {number}: {seen}')

        asked = Question(question, tuple(cameras or ()), last_seconds, tuple(choices or ()))
        with _told_to_the_agent():
            return await toolbox.watch(
                asked,
                tuple(when or ()),
                period_s=period_s,
                timeout_s=timeout_s,
                on_look=on_look,
            )


@contextmanager
def _told_to_the_agent() -> Iterator[None]:
    try:
        yield
    except EdgeVlmError as error:
        raise ToolError(f'{error.code.name}: {error.message}') from error


async def serve(toolbox: Toolbox, out: TextIO) -> None:
    """Serve until standard input ends.

    Args:
        toolbox: Open.
        out: Where messages go: standard output, kept for this alone.
    """
    server = build(toolbox)
    lowlevel = server._lowlevel_server  # noqa: SLF001 (its own run_stdio takes no stream)
    async with stdio_server(stdout=anyio.wrap_file(out)) as (incoming, outgoing):
        await lowlevel.run(incoming, outgoing, lowlevel.create_initialization_options())

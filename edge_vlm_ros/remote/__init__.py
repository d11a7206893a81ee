"""A server instead of a chip: OpenAI-compatible chat completions.

What is sent and what comes back (`messages`, `images`, `events`), what a server's refusal means
(`errors`), which server is next (`servers`), and the only module with sockets (`client`). Nothing
here knows of questions that wait or of conversations: `serving.remote` does.
"""

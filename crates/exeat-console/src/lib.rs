//! Control plane: health today; API, web console and MCP later

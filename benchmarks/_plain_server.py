"""/sizing without Ray: one uvicorn process, until standard input ends.

Run as `python -m benchmarks._plain_server HOME BUNDLE PORT`; knows nothing of who asks it.
"""

import sys
import threading
from pathlib import Path

import uvicorn

from serving.sizing_desk import SizingDesk
from serving.sizing_service import sizing_api


def main(home: str, bundle: str, port: int) -> None:
    """Serve the bundle of that folder from `home`, on loopback."""
    desk = SizingDesk()
    desk.deploy({"home": home, "bundle": bundle, "digest": Path(bundle).name, "status": "STAGING"})
    if desk.refused is not None:
        raise SystemExit(f"the bundle was refused: {desk.refused}")
    config = uvicorn.Config(sizing_api(desk), host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)

    def end() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

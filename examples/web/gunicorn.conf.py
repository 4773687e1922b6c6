"""How gunicorn runs app.py: `gunicorn -c examples/web/gunicorn.conf.py`."""

import os
import pathlib
import socket
import struct
import sys

chdir = str(pathlib.Path(__file__).resolve().parent)
wsgi_app = "app:create()"
bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 1  # it computes on every core, or on the GPU; a second one would hold every model a second time
worker_class = "gthread"
threads = 64  # app.INSIDE compute, the others wait for a place or say 503
worker_connections = 256  # idle ones too; more are not accepted until some have left
keepalive = 5
receive_timeout = 10  # a client that falls silent in the middle of a request does not keep its thread
control_socket_disable = True  # several of these may run
graceful_timeout = 30  # after SIGTERM: what is under way is answered


def post_worker_init(worker):
    for listener in worker.sockets:  # what it accepts inherits this
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", receive_timeout, 0))
    sys.setswitchinterval(0.0005)  # a thread that comes back from the library waits at most so long for one that runs Python

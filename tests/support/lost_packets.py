"""A peer whose packets are lost: nothing that is sent to it arrives, and nothing tells the sender so.

The kernel drops all packets to a socket before TCP sees them, with a filter that accepts none (socket(7),
SO_ATTACH_FILTER): no ACK, no RST, no FIN, as if a cable had been cut or a machine had lost its power. Needs no
privileges. A listening socket drops the attempts to connect to it.
"""

import ctypes
import socket
import struct

# Not in the module `socket`.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
# One instruction of classic BPF: return 0, the number of bytes to keep (`struct sock_filter`).
_KEEP_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)


def drop_packets(end: socket.socket) -> None:
    """Drop all packets that arrive at a socket from now on."""
    program = ctypes.create_string_buffer(_KEEP_NOTHING)
    # `struct sock_fprog`: the number of instructions, and where they are. The kernel copies them.
    end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def deliver_packets(end: socket.socket) -> None:
    """Let packets arrive at a socket again: the sender repeats those that were dropped."""
    end.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

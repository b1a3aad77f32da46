#!/usr/bin/env python3
"""A small Vortex client, written from the specification alone.

    vortex_client.py get --peer tcp://HOST:PORT --insecure TASK -o OUT
    vortex_client.py get --peer quic://HOST:PORT --fingerprint SHA256 TASK -o OUT --length N --piece-length P

Python 3.11 or later. TCP needs nothing else, QUIC needs the package aioquic. The book explains this file from top to
bottom, in "Implement Vortex in a weekend"; a line such as "#= VTX-FRM-011" names the requirement that the next lines meet.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import os
import random
import ssl
import struct
import sys
import urllib.parse
import zlib

# ANCHOR: limits
MAX_LENGTH = 16384  # of the value of any packet
MAX_PIECE = 1073741824
MAX_DIGEST, MAX_PARENT_ID = 256, 1024
CONNECT_DEADLINE, FIRST_BYTE_DEADLINE, PIECE_DEADLINE = 2, 30, 360  # seconds

KINDS = {"piece": 0x00, "persistent": 0x02, "persistent-cache": 0x04, "cache": 0x06}
CLOSE, ERROR = 0xFE, 0xFF
NOT_FOUND = 2
# ANCHOR_END: limits


# ANCHOR: outcomes
class Failure(Exception):
    """A request without a piece. Which one of these it is decides what to do next."""


class Rejected(Failure):
    """The answer breaks a rule."""


class Mismatch(Rejected):
    """The content does not have its digest. Every byte was read, so the place of the next answer is known."""


class NoAnswer(Failure):
    """The stream or connection ended before the first byte: how deployed servers refuse."""


class GoingAway(Failure):
    """A Close packet in place of an answer."""


class Lost(Failure):
    """The connection broke, could not be made, or was too slow."""


class ErrorAnswer(Failure):
    #= VTX-ERR-005
    def __init__(self, code, message):
        names = ["unknown", "invalid argument", "not found", "internal"]
        name = names[code] if code < len(names) else f"unknown, code {code}"
        super().__init__(f"{name}: {printable(message)}" if message else name)
        self.code = code


#= VTX-SEC-001
def printable(text):
    """Text of a peer, fit for a terminal."""
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text[:200])
# ANCHOR_END: outcomes


# ANCHOR: request
@dataclasses.dataclass(frozen=True)
class Request:
    kind: str
    task: str
    number: int
    length: int | None = None  # of the piece, where it is known
    at_most: int = MAX_PIECE
    lenient: bool = False

    #= VTX-REQ-001
    #= VTX-FRM-002
    #= VTX-FRM-003
    def encode(self):
        value = self.task.encode("ascii") + struct.pack(">I", self.number)
        return struct.pack(">BBI", random.randrange(256), KINDS[self.kind], len(value)) + value


#= VTX-REQ-002
def is_task_id(text):
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
# ANCHOR_END: request


# ANCHOR: header
#= VTX-FRM-011
#= VTX-FRM-012
#= VTX-FRM-013
def decode_header(header):
    """Tag and Length; decided before one byte of the value is read."""
    _, tag, length = struct.unpack(">BBI", header)  # the packet id decides nothing
    if length > MAX_LENGTH:
        raise Rejected("too-long")
    download, content = tag <= 7 and tag % 2 == 0, tag <= 7 and tag % 2 == 1
    if (download and length != 68) or (content and length < 49) or (tag == ERROR and length < 1):
        raise Rejected("bad-length")
    return tag, length
# ANCHOR_END: header


# ANCHOR: metadata
@dataclasses.dataclass(frozen=True)
class Metadata:
    number: int
    length: int
    digest: str


#= VTX-FRM-010
#= VTX-CNT-003
#= VTX-CNT-004
#= VTX-CNT-010
#= VTX-CNT-013
#= VTX-CNT-016
def decode_metadata(value):
    """The value of a Content packet. The checks have the order of the decoding table."""
    metadata_length, number, _offset, length = struct.unpack_from(">IIQQ", value)
    if metadata_length != len(value) - 4:
        raise Rejected("bad-metadata")
    if length > MAX_PIECE:
        raise Rejected("bad-piece-length")
    digest, at = take_text(value, 24, MAX_DIGEST)
    _parent_id, at = take_text(value, at, MAX_PARENT_ID)
    if len(value) - at < 17:  # traffic type, cost, created at; what follows them is of later versions
        raise Rejected("bad-metadata")
    return Metadata(number, length, digest)


def take_text(value, at, limit):
    """A text with its length before it, and where it ends."""
    if len(value) - at < 4:
        raise Rejected("bad-metadata")
    (size,) = struct.unpack_from(">I", value, at)
    at += 4
    if size > len(value) - at:
        raise Rejected("bad-metadata")
    if size > limit:
        raise Rejected("field-too-long")
    return decode_text(value[at : at + size]), at + size


def decode_text(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected("not-utf8") from None
# ANCHOR_END: metadata


# ANCHOR: digest
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


#= VTX-DIG-006
#= VTX-DIG-007
#= VTX-DIG-009
#= VTX-DIG-010
def read_digest(text):
    """The algorithm, and every sum that counts as a match; None where there is nothing to check against."""
    if not text:
        return None
    algorithm, colon, value = text.partition(":")
    if not colon:
        raise Rejected("a digest without a colon")
    readings = set()
    if algorithm == "crc32":
        if value.isascii() and value.isdigit() and int(value) <= 0xFFFFFFFF:
            readings.add(int(value))
        if len(value) == 8 and HEXADECIMAL.issuperset(value):
            readings.add(int(value, 16))
    elif algorithm in ("sha256", "sha512"):
        if len(value) == {"sha256": 64, "sha512": 128}[algorithm] and HEXADECIMAL.issuperset(value):
            readings.add(value.lower())
    else:
        return None
    if not readings:
        raise Rejected(f"a malformed digest: {printable(text)}")
    return algorithm, readings


#= VTX-DIG-008
#= VTX-DIG-014
class Checksum:
    def __init__(self, digest, lenient):
        self.algorithm, self.readings = read_digest(digest) or (None, None)
        #= VTX-DIG-011
        #= VTX-DIG-012
        if self.algorithm is None and not lenient:
            raise Rejected(f"no digest that can be checked: {printable(digest)!r}")
        self.crc = 0
        self.hash = hashlib.new(self.algorithm) if self.algorithm in ("sha256", "sha512") else None

    def update(self, data):
        if self.hash:
            self.hash.update(data)
        elif self.algorithm:
            self.crc = zlib.crc32(data, self.crc)

    def matches(self):
        return self.algorithm is None or (self.hash.hexdigest() if self.hash else self.crc) in self.readings
# ANCHOR_END: digest


# ANCHOR: answer
async def read_answer(reader, request, write):
    """Reads the answer to a request and gives the length of its piece and whether it was verified.

    write(position, data) gets the content as it comes; it counts only when this function returns.
    """
    #= VTX-LIM-003
    try:
        async with asyncio.timeout(PIECE_DEADLINE):
            async with asyncio.timeout(FIRST_BYTE_DEADLINE):
                tag, length = decode_header(await exactly(reader, 6, first=True))
            value = await exactly(reader, length)
            if tag == ERROR:
                raise ErrorAnswer(value[0], decode_text(value[1:]))
            #= VTX-CLS-002
            #= VTX-CLS-007
            if tag == CLOSE:
                raise GoingAway("the server closes")
            #= VTX-CNT-020
            #= VTX-CNT-021
            if tag != KINDS[request.kind] + 1:
                raise Rejected(f"tag 0x{tag:02x} in answer to 0x{KINDS[request.kind]:02x}")
            return await read_content(reader, decode_metadata(value), request, write)
    except TimeoutError:
        raise Lost("a deadline has passed") from None


async def read_content(reader, metadata, request, write):
    #= VTX-CNT-007
    if metadata.number != request.number:
        raise Rejected(f"piece {metadata.number} in answer to {request.number}")
    #= VTX-CNT-011
    if request.length not in (None, metadata.length) or metadata.length > request.at_most:
        raise Rejected(f"a piece of {metadata.length} bytes")
    checksum = Checksum(metadata.digest, request.lenient)
    #= VTX-CNT-018
    #= VTX-CNT-019
    position = 0
    while position < metadata.length:
        data = await reader.read(min(65536, metadata.length - position))
        if not data:
            raise Rejected(f"the content ends after {position} of {metadata.length} bytes")
        checksum.update(data)
        write(position, data)
        position += len(data)
    #= VTX-DIG-015
    if not checksum.matches():
        raise Mismatch("the content does not match its digest")
    #= VTX-DIG-013
    return metadata.length, checksum.algorithm is not None


#= VTX-FRM-009
#= VTX-FRM-014
async def exactly(reader, count, first=False):
    try:
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as error:
        if first and not error.partial:
            raise NoAnswer("it ended without an answer") from None
        raise Rejected("truncated") from None
    except ConnectionError as error:
        raise (NoAnswer if first else Lost)(f"connection lost: {error}") from None


#= VTX-QUC-028
#= VTX-QUC-029
async def read_stream(reader, request, write):
    """The same on a QUIC stream, which has to end after the content."""
    try:
        async with asyncio.timeout(PIECE_DEADLINE):
            piece = await read_answer(reader, request, write)
            if await reader.read(1):
                raise Rejected("bytes after the content")
            return piece
    except TimeoutError:
        raise Lost("a deadline has passed") from None
# ANCHOR_END: answer


# ANCHOR: trust
@dataclasses.dataclass(frozen=True)
class Trust:
    """Which servers a client accepts: none unverified, unless it is told so."""

    insecure: bool = False
    fingerprint: bytes | None = None  # SHA-256 of the server's certificate
    authorities: str | None = None  # a file; without it, those of the system

    #= VTX-SEC-005
    def accepts(self, certificate):
        if self.fingerprint and hashlib.sha256(certificate).digest() != self.fingerprint:
            raise Lost("the server's certificate is not the pinned one")


#= VTX-TCP-021
#= VTX-SEC-004
def tls_context(trust):
    context = ssl.create_default_context(cafile=trust.authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if trust.fingerprint:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
# ANCHOR_END: trust


# ANCHOR: tcp
class TcpPeer:
    """One server over TCP, plain where nothing is verified and TLS otherwise."""

    def __init__(self, host, port, trust):
        self.host, self.port, self.trust = host, port, trust
        self.reader = self.writer = None

    async def fetch(self, request, write):
        used = await self.connect()
        try:
            return await self.ask(request, write)
        except NoAnswer:
            #= VTX-TCP-017
            if not used:
                raise
        await self.connect()
        return await self.ask(request, write)

    async def ask(self, request, write):
        try:
            self.writer.write(request.encode())
            return await read_answer(self.reader, request, write)
        #= VTX-ERR-006
        except (ErrorAnswer, Mismatch):
            raise
        #= VTX-TCP-016
        #= VTX-TCP-018
        #= VTX-TCP-019
        except ConnectionError as error:
            self.close()
            raise Lost(f"connection lost: {error}") from None
        except BaseException:
            self.close()
            raise

    async def connect(self):
        """Whether the connection was used before. One on which the server spoke or ended unasked is not used again."""
        if self.writer and not await self.idle_is_quiet():
            self.close()
        if self.writer:
            return True
        #= VTX-LIM-004
        #= VTX-SEC-011
        tls = {} if self.trust.insecure else {"ssl": tls_context(self.trust), "server_hostname": "d7y"}
        try:
            async with asyncio.timeout(CONNECT_DEADLINE):
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port, **tls)
        except (OSError, TimeoutError) as error:
            raise Lost(f"no connection: {error or 'deadline'}") from None
        if tls:
            try:
                self.trust.accepts(self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            except Lost:
                self.close()
                raise
        return False

    #= VTX-TCP-020
    #= VTX-CLS-009
    async def idle_is_quiet(self):
        try:
            async with asyncio.timeout(0):
                await self.reader.read(1)  # a byte, or the end: either one retires the connection
        except TimeoutError:
            return True
        except OSError:
            pass
        return False

    def close(self):
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def leave(self):
        self.close()
# ANCHOR_END: tcp


# ANCHOR: quic
class QuicPeer:
    """One server over QUIC. aioquic is imported here, so that TCP does without it."""

    def __init__(self, host, port, trust):
        self.host, self.port, self.trust = host, port, trust
        self.connection = None
        self.stack = contextlib.AsyncExitStack()

    async def connect(self):
        from aioquic.asyncio import connect
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.packet import QuicProtocolVersion

        #= VTX-QUC-001
        #= VTX-QUC-002
        #= VTX-QUC-004
        #= VTX-QUC-007
        #= VTX-QUC-009
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=None, server_name="d7y", idle_timeout=30.0, max_data=2**24, max_stream_data=2**24,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )  # fmt: skip
        if self.trust.insecure or self.trust.fingerprint:
            configuration.verify_mode = ssl.CERT_NONE
        if self.trust.authorities:
            configuration.load_verify_locations(self.trust.authorities)
        if os.environ.get("SSLKEYLOGFILE"):
            configuration.secrets_log_file = self.stack.enter_context(open(os.environ["SSLKEYLOGFILE"], "a", encoding="ascii"))
        try:
            async with asyncio.timeout(CONNECT_DEADLINE):
                connecting = connect(self.host, self.port, configuration=configuration, create_protocol=connection_class())
                connection = await self.stack.enter_async_context(connecting)
        except (OSError, TimeoutError) as error:
            raise Lost(f"no connection: {error or 'refused, or too slow'}") from None
        try:
            self.trust.accepts(connection.certificate())
        except Lost:
            await self.leave()
            raise
        keeping = asyncio.create_task(connection.keep_alive())
        self.stack.callback(keeping.cancel)
        self.connection = connection

    async def fetch(self, request, write):
        if self.connection and self.connection.over:
            await self.leave()
        if not self.connection:
            await self.connect()
        connection = self.connection
        #= VTX-QUC-012
        #= VTX-QUC-013
        reader, writer = await connection.create_stream()
        writer.write(request.encode())
        writer.write_eof()
        stream = writer.get_extra_info("stream_id")
        try:
            return await read_stream(reader, request, write)
        #= VTX-QUC-032
        except Rejected as error:
            connection.stop(stream, 6 if isinstance(error, Mismatch) else 2)
            raise
        #= VTX-CLS-008
        except GoingAway:
            connection.over = True
            raise
        #= VTX-QUC-033
        except Lost:
            connection.stop(stream, 4)
            raise
        except asyncio.CancelledError:
            connection.stop(stream, 7)
            raise
        finally:
            connection.forget(stream)

    async def leave(self):
        self.connection = None
        await self.stack.aclose()


def connection_class():
    from aioquic.asyncio import QuicConnectionProtocol
    from aioquic.quic import events

    class Connection(QuicConnectionProtocol):
        """What aioquic leaves to its callers: resets, STOP_SENDING, keep-alive, and that a server opens no stream."""

        over = False

        def __init__(self, quic, stream_handler=None):
            super().__init__(quic, stream_handler)
            #= VTX-QUC-018
            #= VTX-QUC-019
            quic._local_max_streams_bidi.value = quic._local_max_streams_uni.value = 0

        def quic_event_received(self, event):
            #= VTX-QUC-031
            #= VTX-QUC-035
            if isinstance(event, events.StreamReset) and event.stream_id in self._stream_readers:
                rejected = Rejected(f"the stream was reset with code {event.error_code}")
                self._stream_readers[event.stream_id].set_exception(rejected)
            elif isinstance(event, events.ConnectionTerminated):
                self.over = True
                for reader in self._stream_readers.values():
                    reader.set_exception(Lost(f"connection lost: {printable(event.reason_phrase)}"))
            #= VTX-QUC-017
            elif isinstance(event, events.StreamDataReceived) and event.stream_id in self._stream_readers:
                super().quic_event_received(event)

        def certificate(self):
            from cryptography.hazmat.primitives.serialization import Encoding

            return self._quic.tls._peer_certificate.public_bytes(Encoding.DER)

        def stop(self, stream, code):
            reader = self._stream_readers[stream]
            if not self.over and not reader.at_eof() and not reader.exception():
                with contextlib.suppress(ValueError):  # the stream has ended, though not all of it was read
                    self._quic.stop_stream(stream, code)
                self.transmit()

        def forget(self, stream):
            self._stream_readers.pop(stream, None)

        #= VTX-QUC-008
        async def keep_alive(self):
            with contextlib.suppress(ConnectionError):
                while True:
                    await asyncio.sleep(3)
                    await self.ping()

    return Connection
# ANCHOR_END: quic


# ANCHOR: file
#= VTX-REQ-005
#= VTX-REQ-006
#= VTX-REQ-008
def divide(length, piece_length):
    """How many pieces a task has."""
    if not 0 < piece_length <= MAX_PIECE:
        raise ValueError(f"a piece length of {piece_length}")
    pieces = max(1, -(-length // piece_length))
    if pieces > 2**32:
        raise ValueError(f"{pieces} pieces")
    return pieces


class Fetch:
    """A file, fetched piece by piece from any of several peers."""

    def __init__(self, peers, kind, task, file, lenient=False):
        self.peers, self.kind, self.task, self.file, self.lenient = list(peers), kind, task, file, lenient
        self.unverified = 0
        self.complaints = []

    async def known(self, length, piece_length):
        """A task of known length. Gives the length."""
        for number in range(divide(length, piece_length)):
            #= VTX-REQ-007
            offset = number * piece_length
            await self.piece(number, offset, length=min(piece_length, length - offset))
        return length

    async def probe(self):
        """A task of unknown length: its first piece tells the piece length, a shorter one or Not Found its end.

        A server that does not hold a piece answers Not Found, too; so the end of a file counts as found only when all peers
        say so.
        """
        piece_length = await self.piece(0, 0)
        end = piece_length
        for number in range(1, 2**32):
            if piece_length == 0 or end % piece_length:
                break
            try:
                end += await self.piece(number, number * piece_length, at_most=piece_length)
            except ErrorAnswer as error:
                if error.code != NOT_FOUND:
                    raise
                break
        return end

    async def piece(self, number, offset, length=None, at_most=MAX_PIECE):
        """Asks one peer after the other. Not Found is the outcome only where no peer says anything else."""
        request = Request(self.kind, self.task, number, length, at_most, self.lenient)

        #= VTX-CNT-009
        def write(position, data):
            self.file.seek(offset + position)
            self.file.write(data)

        failures = []
        #= VTX-SEC-008
        for peer in [*self.peers, *self.peers]:
            if any(failed is peer and isinstance(error, ErrorAnswer) for failed, error in failures):
                continue  # it has said what it has to say
            try:
                got, verified = await peer.fetch(request, write)
            except Failure as error:
                failures.append((peer, error))
                self.complaints.append(f"piece {number} from {peer.host}:{peer.port}: {error}")
                continue
            self.peers.sort(key=lambda one: one is not peer)  # whoever delivers is asked first
            self.unverified += not verified
            return got
        raise next((error for _, error in failures if getattr(error, "code", None) != NOT_FOUND), failures[-1][1])
# ANCHOR_END: file


# ANCHOR: main
def peer_of(address, trust):
    url = urllib.parse.urlsplit(address)
    if url.scheme not in ("tcp", "quic") or not url.hostname:
        raise ValueError(f"{address} is not tcp://HOST:PORT or quic://HOST:PORT")
    return TcpPeer(url.hostname, url.port or 4005, trust) if url.scheme == "tcp" else QuicPeer(url.hostname, url.port or 4006, trust)


async def get(options):
    trust = Trust(options.insecure, options.fingerprint and bytes.fromhex(options.fingerprint), options.authorities)
    #= VTX-SEC-010
    if trust.insecure:
        print("warning: no server is verified, and TCP is not encrypted", file=sys.stderr)
    peers = [peer_of(address, trust) for address in options.peer]
    part = options.out + ".part"
    with open(part, "wb") as file:
        fetch = Fetch(peers, options.kind, options.task, file, options.lenient)
        try:
            known = options.length is not None
            length = await (fetch.known(options.length, options.piece_length) if known else fetch.probe())
            file.truncate(length)
        finally:
            for peer in peers:
                await peer.leave()
            for line in fetch.complaints:
                print(line, file=sys.stderr)
    os.replace(part, options.out)
    print(f"{length} bytes" + (f", {fetch.unverified} pieces not verified" if fetch.unverified else ""))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command = parser.add_subparsers(required=True).add_parser("get", help="fetch a file")
    command.add_argument("task", help="64 lower-case hexadecimal digits")
    command.add_argument("--peer", action="append", required=True, help="tcp://HOST:PORT or quic://HOST:PORT; may be repeated")
    command.add_argument("-o", "--out", required=True)
    command.add_argument("--kind", choices=KINDS, default="piece")
    command.add_argument("--length", type=int, help="of the task in bytes; without it the peer is asked until Not Found")
    command.add_argument("--piece-length", type=int)
    command.add_argument("--lenient", action="store_true", help="take pieces whose digest cannot be checked")
    trust = command.add_mutually_exclusive_group()
    trust.add_argument("--insecure", action="store_true", help="verify no server; TCP without TLS")
    trust.add_argument("--fingerprint", help="SHA-256 of the server's certificate, in hexadecimal")
    trust.add_argument("--authorities", help="certificates to verify with, instead of those of the system")
    options = parser.parse_args(arguments)
    if not is_task_id(options.task):
        parser.error("TASK is not 64 lower-case hexadecimal digits")
    if (options.length is None) != (options.piece_length is None):
        parser.error("--length and --piece-length go together")
    try:
        asyncio.run(get(options))
    except (Failure, ValueError, OSError) as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()
# ANCHOR_END: main

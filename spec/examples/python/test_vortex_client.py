"""Tests of vortex_client.py, against servers in this file that behave well and badly.

    python3 -m unittest discover -s spec/examples/python

Without the package aioquic the tests over QUIC and TLS are skipped. With spec/vectors, their packets, digests, divisions and
sessions are read as well.
"""

import asyncio
import contextlib
import datetime
import hashlib
import io
import logging
import pathlib
import ssl
import struct
import sys
import tempfile
import unittest
import unittest.mock
import zlib

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
import vectors  # noqa: E402
import vortex_client as client  # noqa: E402
from vortex_client import ErrorAnswer, Fetch, GoingAway, Lost, Mismatch, NoAnswer, Rejected, Request, TcpPeer, Trust  # noqa: E402

try:
    import aioquic.asyncio
    import aioquic.tls
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:
    aioquic = None

# Servers that are refused say so in logs.
for name in ("asyncio", "quic"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

TASK = hashlib.sha256(b"task").hexdigest()
FILE = bytes(i * 11 % 253 for i in range(2500))
PIECE = 1000
INSECURE = Trust(insecure=True)


def packet(tag, value, packet_id=77):
    return struct.pack(">BBI", packet_id, tag, len(value)) + value


def content(number, data, tag=1, digest=None, parent=b"", length=None, appended=b"", metadata_length=None, created_at=-1):
    digest = f"crc32:{zlib.crc32(data)}".encode() if digest is None else digest
    value = struct.pack(">IQQI", number, 2**64 - 1, len(data) if length is None else length, len(digest)) + digest
    value += struct.pack(">I", len(parent)) + parent + struct.pack(">BQq", 200, 2**64 - 1, created_at) + appended
    value = struct.pack(">I", len(value) if metadata_length is None else metadata_length) + value
    return packet(tag, value) + data


def error(code, message=b""):
    return packet(0xFF, bytes([code]) + message)


def piece(number):
    """The good answer for a piece of FILE."""
    data = FILE[number * PIECE : (number + 1) * PIECE]
    return content(number, data) if data else error(2, b"no such piece")


async def answer_of(data, ends=True, read=client.read_answer, each=None, **request):
    """What a client makes of the bytes of an answer: the content, or the failure."""
    reader, got = asyncio.StreamReader(), bytearray()
    asking = asyncio.ensure_future(read(reader, Request("piece", TASK, request.pop("number", 0), **request), lambda at, part: got.extend(part)))
    for at in range(0, len(data), each or max(1, len(data))):
        reader.feed_data(data[at : at + (each or len(data))])
        await asyncio.sleep(0)
    if ends:
        reader.feed_eof()
    length, verified = await asking
    assert length == len(got)
    return bytes(got), verified


class Answers(unittest.IsolatedAsyncioTestCase):
    async def rejects(self, data, reason, kind=Rejected, **options):
        with self.assertRaisesRegex(kind, reason) as caught:
            await answer_of(data, **options)
        self.assertIs(type(caught.exception), kind)

    async def test_a_piece_arrives_however_it_is_split(self):
        #= VTX-FRM-009 test
        for each in (None, 1, 5, 6, 7):
            self.assertEqual(await answer_of(piece(0), each=each), (FILE[:PIECE], True))
        self.assertEqual(await answer_of(content(0, b"")), (b"", True))

    async def test_bytes_after_the_content_belong_to_it_only_on_tcp(self):
        #= VTX-CNT-018 test
        #= VTX-QUC-029 test
        self.assertEqual((await answer_of(content(0, b"abc") + b"x"))[0], b"abc")
        await self.rejects(content(0, b"abc") + b"x", "after the content", read=client.read_stream)
        self.assertEqual((await answer_of(content(0, b"abc"), read=client.read_stream))[0], b"abc")

    async def test_a_header_is_judged_before_its_value(self):
        #= VTX-FRM-011 test
        #= VTX-FRM-012 test
        #= VTX-FRM-013 test
        for tag in range(256):
            await self.rejects(struct.pack(">BBI", 0, tag, 16385), "^too-long$", ends=False)
        for tag, length in ((0, 67), (0, 69), (2, 0), (1, 48), (3, 0), (0xFF, 0)):
            await self.rejects(struct.pack(">BBI", 0, tag, length), "^bad-length$", ends=False)

    async def test_what_ends_too_early(self):
        #= VTX-FRM-014 test
        #= VTX-CNT-019 test
        #= VTX-QUC-030 test
        whole = content(0, b"abcdef", parent=b"peer")
        await self.rejects(b"", "without an answer", kind=NoAnswer)
        for end in range(1, len(whole)):
            await self.rejects(whole[:end], "truncated" if end <= len(whole) - 7 else "ends after|truncated")

    async def test_error_packets(self):
        #= VTX-ERR-002 test
        #= VTX-ERR-005 test
        await self.rejects(error(2), "^not found$", kind=ErrorAnswer)
        await self.rejects(error(3, b"a \x1b[31mred\n store"), r"internal: a \\u\{1b\}\[31mred\\u\{a\} store", kind=ErrorAnswer)
        await self.rejects(error(200, b"x"), "unknown, code 200: x", kind=ErrorAnswer)
        await self.rejects(error(1, b"\xff"), "not-utf8")

    async def test_other_packets_in_place_of_an_answer(self):
        #= VTX-CLS-002 test
        #= VTX-CNT-020 test
        #= VTX-CNT-021 test
        for value in (b"", b"xyz"):
            await self.rejects(packet(0xFE, value), "closes", kind=GoingAway)
        for tag in (0x08, 0xF1, 0x80):
            await self.rejects(packet(tag, b""), "tag 0x")
        await self.rejects(packet(0, b"0" * 68), "tag 0x00")
        await self.rejects(content(0, b"abc", tag=3), "tag 0x03")

    async def test_metadata(self):
        #= VTX-CNT-003 test
        #= VTX-CNT-004 test
        #= VTX-CNT-007 test
        #= VTX-CNT-010 test
        #= VTX-CNT-011 test
        #= VTX-CNT-013 test
        await self.rejects(content(1, b"abc"), "piece 1 in answer to 0")
        await self.rejects(content(0, b"abc"), "a piece of 3 bytes", length=4)
        await self.rejects(content(0, b"abc"), "a piece of 3 bytes", at_most=2)
        await self.rejects(content(0, b"", length=2**30 + 1), "bad-piece-length")
        await self.rejects(content(0, b"", length=2**64 - 1), "bad-piece-length")
        await self.rejects(content(0, b"abc", metadata_length=3), "bad-metadata")
        await self.rejects(content(0, b"abc", parent=b"p" * 1025), "field-too-long")
        await self.rejects(content(0, b"abc", digest=b"d" * 257), "field-too-long")
        await self.rejects(content(0, b"abc", parent=b"\xc0\x80"), "not-utf8")
        await self.rejects(content(0, b"abc", digest=b"\xed\xa0\x80"), "not-utf8")
        self.assertEqual((await answer_of(content(0, b"abc", appended=b"later", parent=b"p" * 1024)))[0], b"abc")

    async def test_metadata_that_disagrees_with_itself_never_decodes(self):
        good = content(0, b"", parent=b"peer")
        for at in (6, 30, 30 + 4 + 7):  # the three lengths inside of the metadata
            for wrong in (0xFFFFFFFF, 5, 60, 16384):
                bad = good[:at] + struct.pack(">I", wrong) + good[at + 4 :]
                if bad != good:
                    with self.assertRaises(Rejected):
                        await answer_of(bad)

    async def test_digests(self):
        #= VTX-DIG-006 test
        #= VTX-DIG-007 test
        #= VTX-DIG-008 test
        #= VTX-DIG-009 test
        #= VTX-DIG-010 test
        #= VTX-DIG-015 test
        data = b"123456789"
        upper = hashlib.sha512(data).hexdigest().upper()
        for digest in ("crc32:3421780262", "crc32:0003421780262", "crc32:cbf43926", "crc32:CBF43926",
                       f"sha256:{hashlib.sha256(data).hexdigest()}", f"sha512:{upper}"):  # fmt: skip
            self.assertEqual(await answer_of(content(0, data, digest=digest.encode())), (data, True))
        # 8 decimal digits have two readings, and each of them matches its content.
        self.assertEqual(client.read_digest("crc32:12345678"), ("crc32", {12345678, 0x12345678}))
        for digest in ("crc32:3421780263", "crc32:00000000", f"sha256:{'0' * 64}"):
            await self.rejects(content(0, data, digest=digest.encode()), "does not match", kind=Mismatch)
        for digest in ("crc32", "crc32:", "crc32:+1", "crc32: 1", "crc32:4294967296", "crc32:0xcbf43926", "crc32:cbf4392", "crc32:٣",
                       "sha256:ab", f"sha256:{'g' * 64}", f"sha512:{'0' * 64}"):  # fmt: skip
            await self.rejects(content(0, data, digest=digest.encode()), "digest", lenient=True)

    async def test_without_a_digest_only_a_lenient_client_takes_the_piece(self):
        #= VTX-DIG-011 test
        #= VTX-DIG-012 test
        #= VTX-DIG-013 test
        for digest in (b"", b"md5:123", b"SHA256:" + b"0" * 64):
            await self.rejects(content(0, b"abc", digest=digest), "no digest that can be checked")
            self.assertEqual(await answer_of(content(0, b"abc", digest=digest), lenient=True), (b"abc", False))

    async def test_deadlines(self):
        #= VTX-LIM-003 test
        for name, data in (("FIRST_BYTE_DEADLINE", b"\0\1\0"), ("PIECE_DEADLINE", piece(0)[:-1])):
            with unittest.mock.patch.object(client, name, 0.01):
                await self.rejects(data, "deadline", kind=Lost, ends=False)


class Arithmetic(unittest.TestCase):
    def test_division(self):
        #= VTX-REQ-005 test
        #= VTX-REQ-006 test
        #= VTX-REQ-008 test
        self.assertEqual([client.divide(length, 10) for length in (0, 1, 9, 10, 11, 2**33)], [1, 1, 1, 1, 2, 858993460])
        for length, piece_length in ((1, 0), (1, 2**30 + 1), (2**32 + 1, 1)):
            self.assertRaises(ValueError, client.divide, length, piece_length)

    def test_the_request_is_74_bytes(self):
        #= VTX-REQ-001 test
        sent = Request("cache", TASK, 0x01020304).encode()
        self.assertEqual(sent[1:], b"\6\0\0\0\x44" + TASK.encode() + b"\1\2\3\4")

    def test_task_ids(self):
        #= VTX-REQ-002 test
        self.assertTrue(client.is_task_id(TASK))
        for bad in (TASK[1:], TASK + "0", TASK.upper(), "٣" * 64, "../" + TASK[3:]):
            self.assertFalse(client.is_task_id(bad))


class Script:
    """A server that answers the requests it gets, over all of its connections, with the entries of a list, in order: bytes, or
    a coroutine function that is given the writer. Afterwards it answers like a good one. END ends the connection."""

    def __init__(self, *answers):
        self.answers, self.connections, self.asked, self.received = list(answers), 0, [], b""

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(74)
                self.received += request
                number = int.from_bytes(request[70:], "big")
                self.asked.append((request[1], number))
                answer = self.answers.pop(0) if self.answers else piece(number)
                if answer is END:
                    break
                writer.write(answer)
        writer.close()


END = object()


@contextlib.asynccontextmanager
async def over_tcp(script, trust=INSECURE, **options):
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, **options)
    peer = TcpPeer("127.0.0.1", server.sockets[0].getsockname()[1], trust)
    try:
        yield peer
    finally:
        await peer.leave()
        server.close()


async def fetch_from(*peers, length=None, **options):
    file = io.BytesIO()
    fetch = Fetch(peers, "piece", TASK, file, **options)
    got = await (fetch.probe() if length is None else fetch.known(length, PIECE))
    return file.getvalue()[:got], fetch


class Files(unittest.IsolatedAsyncioTestCase):
    """A file over TCP, and what a client does with its connections."""

    async def test_a_file_with_and_without_its_length(self):
        #= VTX-CNT-009 test
        #= VTX-REQ-007 test
        for length in (None, len(FILE)):
            script = Script()
            async with over_tcp(script) as peer:
                self.assertEqual((await fetch_from(peer, length=length))[0], FILE)
            self.assertEqual(script.connections, 1)
            self.assertEqual(script.asked, [(0, 0), (0, 1), (0, 2)])

    async def test_probing_ends_at_not_found_and_at_an_empty_task(self):
        async with over_tcp(Script(content(0, b"x" * PIECE), error(2))) as peer:
            self.assertEqual((await fetch_from(peer))[0], b"x" * PIECE)
        async with over_tcp(Script(content(0, b""))) as peer:
            self.assertEqual((await fetch_from(peer))[0], b"")
        async with over_tcp(Script(error(2))) as peer:
            with self.assertRaisesRegex(ErrorAnswer, "not found"):
                await fetch_from(peer)

    async def test_pieces_that_could_not_be_verified_are_counted(self):
        #= VTX-DIG-013 test
        unverified = [content(number, FILE[number * PIECE :][:PIECE], digest=b"") for number in (0, 1)]
        async with over_tcp(Script(*unverified)) as peer:
            body, fetch = await fetch_from(peer, lenient=True)
        self.assertEqual((body, fetch.unverified), (FILE, 2))

    async def test_a_piece_longer_than_the_first_is_rejected(self):
        async with over_tcp(Script(content(0, b"x" * 10), *[content(1, b"y" * 11)] * 2)) as peer:
            with self.assertRaisesRegex(Rejected, "a piece of 11 bytes"):
                await fetch_from(peer)

    async def test_an_error_keeps_the_connection(self):
        #= VTX-ERR-006 test
        script = Script(error(3, b"busy"))
        async with over_tcp(script) as peer:
            with self.assertRaises(ErrorAnswer):
                await fetch_from(peer)
            self.assertEqual((await fetch_from(peer))[0], FILE)
        self.assertEqual(script.connections, 1)

    async def test_a_mismatch_keeps_the_connection_and_other_rejections_close_it(self):
        #= VTX-TCP-018 test
        for bad, connections in ((content(0, FILE[:PIECE], digest=b"crc32:1"), 1), (content(1, b""), 2), (packet(0x99, b""), 2)):
            script = Script(bad)
            async with over_tcp(script) as peer:
                self.assertEqual((await fetch_from(peer))[0], FILE)
            self.assertEqual(script.connections, connections)

    async def test_a_stale_connection_is_tried_again_once(self):
        #= VTX-TCP-016 test
        #= VTX-TCP-017 test
        script = Script(piece(0), END)
        async with over_tcp(script) as peer:
            body, fetch = await fetch_from(peer)
        self.assertEqual((body, script.connections, fetch.complaints), (FILE, 2, []))
        script = Script(END, END, END, END)
        async with over_tcp(script) as peer:
            with self.assertRaises(NoAnswer):
                await fetch_from(peer)

    async def test_close_moves_to_a_new_connection(self):
        #= VTX-CLS-007 test
        #= VTX-CLS-008 test
        script = Script(piece(0), packet(0xFE, b""))
        async with over_tcp(script) as peer:
            body, fetch = await fetch_from(peer)
        self.assertEqual((body, script.connections), (FILE, 2))
        self.assertIn("the server closes", fetch.complaints[0])

    async def test_bytes_that_nobody_asked_for_retire_the_connection(self):
        #= VTX-CLS-009 test
        #= VTX-TCP-020 test
        for stray in (b"x", packet(0xFE, b"")):
            script = Script(piece(0) + stray)
            async with over_tcp(script) as peer:
                body, fetch = await fetch_from(peer)
            self.assertEqual((body, script.connections, fetch.complaints), (FILE, 2, []))

    async def test_another_peer_is_asked_after_a_rejection(self):
        #= VTX-SEC-008 test
        bad, good = Script(*[content(0, FILE[:PIECE], digest=b"crc32:1")] * 9), Script()
        async with over_tcp(bad) as first, over_tcp(good) as second:
            self.assertEqual((await fetch_from(first, second))[0], FILE)
        self.assertEqual((len(bad.asked), len(good.asked)), (1, 3))

    async def test_a_piece_that_one_peer_lacks_is_no_end(self):
        lacking, broken = Script(piece(0), error(2)), Script(END, END, END)
        async with over_tcp(lacking) as first, over_tcp(broken) as second:
            with self.assertRaises(NoAnswer):
                await fetch_from(first, second)

    async def test_nobody_there(self):
        #= VTX-LIM-004 test
        with self.assertRaisesRegex(Lost, "no connection"):
            await fetch_from(TcpPeer("127.0.0.1", 9, INSECURE))

    async def test_the_command_line(self):
        #= VTX-SEC-010 test
        script = Script()
        async with over_tcp(script) as peer:
            with tempfile.TemporaryDirectory() as directory:
                out = pathlib.Path(directory, "file")
                arguments = ["get", "--peer", f"tcp://127.0.0.1:{peer.port}", "--insecure", TASK, "-o", str(out)]
                with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()) as warned:
                    await asyncio.to_thread(client.main, arguments)
                self.assertEqual(out.read_bytes(), FILE)
                self.assertEqual([path.name for path in out.parent.iterdir()], ["file"])
        self.assertEqual(said.getvalue(), "2500 bytes\n")
        self.assertIn("warning: no server is verified", warned.getvalue())

    async def test_a_failure_leaves_no_file_under_its_name(self):
        async with over_tcp(Script(error(2, b"gone"))) as peer:
            with tempfile.TemporaryDirectory() as directory:
                out = pathlib.Path(directory, "file")
                arguments = ["get", "--peer", f"tcp://127.0.0.1:{peer.port}", "--insecure", TASK, "-o", str(out)]
                with contextlib.redirect_stderr(io.StringIO()):
                    with self.assertRaisesRegex(SystemExit, "not found: gone"):
                        await asyncio.to_thread(client.main, arguments)
                self.assertFalse(out.exists())


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "d7y")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("d7y")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return key, builder.sign(key, hashes.SHA256())


@unittest.skipIf(aioquic is None, "aioquic is not installed")
class Identity(unittest.IsolatedAsyncioTestCase):
    """TLS over TCP and QUIC: who is believed."""

    @classmethod
    def setUpClass(cls):
        cls.key, cls.certificate = certificate()
        cls.pin = hashlib.sha256(cls.certificate.public_bytes(serialization.Encoding.DER)).digest()
        cls.directory = tempfile.TemporaryDirectory()
        cls.pem = str(pathlib.Path(cls.directory.name, "certificate.pem"))
        key = cls.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pathlib.Path(cls.pem).write_bytes(cls.certificate.public_bytes(serialization.Encoding.PEM) + key)
        cls.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.context.load_cert_chain(cls.pem)

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def trusts(self):
        return [(Trust(fingerprint=self.pin), True), (Trust(authorities=self.pem), True),
                (Trust(), False), (Trust(fingerprint=bytes(32)), False)]  # fmt: skip

    async def test_tls_over_tcp(self):
        #= VTX-TCP-021 test
        #= VTX-SEC-004 test
        #= VTX-SEC-005 test
        for trust, accepted in self.trusts():
            script = Script()
            async with over_tcp(script, trust, ssl=self.context) as peer:
                if accepted:
                    self.assertEqual((await fetch_from(peer))[0], FILE)
                else:
                    with self.assertRaises(Lost):
                        await fetch_from(peer)
                    self.assertEqual(script.asked, [])

    async def test_no_plain_tcp_where_identity_is_demanded(self):
        #= VTX-SEC-011 test
        script = Script()
        with unittest.mock.patch.object(client, "CONNECT_DEADLINE", 0.2):
            async with over_tcp(script, Trust(fingerprint=self.pin)) as peer:
                with self.assertRaises(Lost):
                    await fetch_from(peer)
        self.assertNotIn(TASK.encode(), script.received)

    async def test_quic(self):
        #= VTX-SEC-004 test
        #= VTX-SEC-005 test
        for trust, accepted in self.trusts():
            async with over_quic({}, trust, self) as (peer, seen):
                if accepted:
                    self.assertEqual((await fetch_from(peer))[0], FILE)
                else:
                    with self.assertRaises(Lost):
                        await fetch_from(peer)
                    self.assertEqual(seen.asked, [])


class Seen:
    """What a server over QUIC saw."""

    def __init__(self):
        self.asked, self.stopped, self.servers, self.ended = [], [], [], []
        self.over = asyncio.Event()


@contextlib.asynccontextmanager
async def over_quic(answers, trust=INSECURE, identity=None, alpn=None):
    """answers: by stream, bytes or a function that is given the protocol and the stream id. Others are answered well."""
    key, cert = (identity.key, identity.certificate) if identity else certificate()
    seen = Seen()

    class Server(aioquic.asyncio.QuicConnectionProtocol):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.requests = {}
            seen.servers.append(self)

        def quic_event_received(self, event):
            if isinstance(event, StreamDataReceived):
                request = self.requests[event.stream_id] = self.requests.get(event.stream_id, b"") + event.data
                if event.end_stream:
                    self.answer(event.stream_id, request)
            elif isinstance(event, StopSendingReceived):
                seen.stopped.append((event.stream_id, event.error_code))
            elif isinstance(event, ConnectionTerminated):
                seen.ended.append(event.error_code)
                seen.over.set()

        def answer(self, stream, request):
            assert len(request) == 74, request
            number = int.from_bytes(request[70:], "big")
            seen.asked.append((stream, number))
            answer = answers.pop(stream, None) or piece(number)
            if callable(answer):
                answer(self, stream)
            else:
                self._quic.send_stream_data(stream, answer, end_stream=True)
            self.transmit()

    configuration = QuicConfiguration(is_client=False, certificate=cert, private_key=key, alpn_protocols=alpn)
    server = await aioquic.asyncio.serve("::", 0, configuration=configuration, create_protocol=Server)
    peer = client.QuicPeer("127.0.0.1", server._transport.get_extra_info("sockname")[1], trust)
    try:
        yield peer, seen
    finally:
        await peer.leave()
        server.close()


@unittest.skipIf(aioquic is None, "aioquic is not installed")
class Quic(unittest.IsolatedAsyncioTestCase):
    async def outcome(self, answer, kind, reason, stopped=None):
        """One bad answer, and then a good one on the same connection."""
        async with over_quic({0: answer}) as (peer, seen):
            with self.assertRaisesRegex(kind, reason) as caught:
                await peer.fetch(Request("piece", TASK, 0), lambda *_: None)
            self.assertIs(type(caught.exception), kind)
            again = peer.connection and not peer.connection.over
            self.assertEqual(await peer.fetch(Request("piece", TASK, 0), lambda *_: None), (PIECE, True))
            await peer.leave()
            self.assertEqual(seen.stopped, [] if stopped is None else [(0, stopped)])
            return len(seen.servers), again

    async def test_a_file(self):
        #= VTX-QUC-012 test
        #= VTX-QUC-013 test
        #= VTX-QUC-019 test
        for length in (None, len(FILE)):
            async with over_quic({}) as (peer, seen):
                self.assertEqual((await fetch_from(peer, length=length))[0], FILE)
                server = seen.servers[0]._quic
                self.assertEqual(seen.asked, [(0, 0), (4, 1), (8, 2)])
                self.assertEqual((server._remote_max_streams_bidi, server._remote_max_streams_uni), (0, 0))
                self.assertEqual((server._remote_max_data, server._remote_max_stream_data_bidi_local), (2**24, 2**24))

    async def test_the_hello_has_a_server_name_and_no_alpn(self):
        #= VTX-QUC-002 test
        #= VTX-QUC-004 test
        hellos = []
        pull = aioquic.tls.pull_client_hello

        def record(buffer):
            hellos.append(pull(buffer))
            return hellos[-1]

        with unittest.mock.patch.object(aioquic.tls, "pull_client_hello", record):
            async with over_quic({}) as (peer, _):
                await fetch_from(peer)
        self.assertEqual([(hello.server_name, hello.alpn_protocols) for hello in hellos], [("d7y", None)])

    async def test_a_server_that_insists_on_alpn_is_no_server(self):
        async with over_quic({}, alpn=["vortex"]) as (peer, seen):
            with self.assertRaisesRegex(Lost, "no connection"):
                await fetch_from(peer)
            self.assertEqual(seen.asked, [])

    async def test_what_is_wrong_on_a_stream_costs_the_stream_only(self):
        #= VTX-QUC-030 test
        #= VTX-QUC-031 test
        #= VTX-QUC-032 test
        #= VTX-QUC-034 test
        def silent(code, data=b""):
            def answer(server, stream):
                server._quic.send_stream_data(stream, data)
                server.transmit()
                server._quic.reset_stream(stream, code)
            return answer

        def unfinished(data):
            return lambda server, stream: server._quic.send_stream_data(stream, data)

        good = piece(0)
        mismatch = content(0, FILE[:PIECE], digest=b"crc32:1")
        for answer, kind, reason, stopped in (
            (lambda server, stream: server._quic.send_stream_data(stream, b"", end_stream=True), NoAnswer, "without an answer", None),
            (silent(1), Rejected, "reset with code 1", None),
            (silent(6, good[:-1]), Rejected, "reset with code 6", None),
            (silent(0, good), Rejected, "reset with code 0", None),
            (good[:-1], Rejected, "ends after 999 of 1000", None),
            (error(2, b"no"), ErrorAnswer, "not found: no", None),
            (error(2, b"no") + b"and more", ErrorAnswer, "not found: no", None),
            (unfinished(good + b"x"), Rejected, "after the content", 2),
            (unfinished(content(1, b"")), Rejected, "piece 1 in answer to 0", 2),
            (unfinished(struct.pack(">BBI", 0, 1, 2**32 - 1)), Rejected, "too-long", 2),
            (unfinished(mismatch), Mismatch, "does not match", 6),
            (mismatch, Mismatch, "does not match", None),
        ):
            with self.subTest(reason=reason):
                self.assertEqual(await self.outcome(answer, kind, reason, stopped), (1, True))

    async def test_stop_sending_does_not_end_an_answer(self):
        #= VTX-QUC-017 test
        def answer(server, stream):
            server._quic.stop_stream(stream, 0)
            server.transmit()
            server._quic.send_stream_data(stream, piece(0), end_stream=True)

        async with over_quic({0: answer}) as (peer, _):
            self.assertEqual((await fetch_from(peer))[0], FILE)

    async def test_an_answer_without_an_end_runs_into_the_deadline(self):
        #= VTX-QUC-028 test
        #= VTX-QUC-033 test
        with unittest.mock.patch.object(client, "PIECE_DEADLINE", 0.3):
            await self.outcome(lambda server, stream: server._quic.send_stream_data(stream, piece(0)), Lost, "deadline", 4)

    async def test_close_and_lost_connections_lead_to_a_new_one(self):
        #= VTX-CLS-007 test
        #= VTX-CLS-008 test
        self.assertEqual(await self.outcome(packet(0xFE, b""), GoingAway, "closes"), (2, False))
        lose = lambda server, stream: server._quic.close(error_code=5, reason_phrase="bye\n")  # noqa: E731
        self.assertEqual(await self.outcome(lose, Lost, r"connection lost: bye\\u\{a\}"), (2, False))

    async def test_the_client_leaves_with_code_0(self):
        async with over_quic({}) as (peer, seen):
            await fetch_from(peer)
            await peer.leave()
            # The server hears of it when the datagram arrives.
            await asyncio.wait_for(seen.over.wait(), 10)
            self.assertEqual(seen.ended, [0])


# How this client words the reasons of session vectors. All others are names of decode errors, which it gives as they are.
REASONS = {
    "wrong-tag": "^tag 0x", "wrong-number": "^piece .* in answer to", "wrong-length": "^a piece of", "bad-digest": "^a (malformed )?digest",
    "no-digest": "^no digest .*''$", "unknown-digest": "^no digest .*[^']'$", "digest-mismatch": "does not match", "incomplete": "ends after",
    "extra-bytes": "after the content", "reset": "reset",
}  # fmt: skip


class Vectors(unittest.IsolatedAsyncioTestCase):
    """spec/vectors, where it is there."""

    def found(self, kind):
        found = vectors.load(kind)
        if not found:
            self.skipTest(f"there are no vectors of {kind}")
        return found

    async def test_packets(self):
        """As answers: a Content packet is given its content and a request that fits."""
        seen = 0
        for vector in self.found("packets"):
            data = vectors.octets(vector)
            fields = {field["name"]: field["value"] for field in vector.get("fields", [])}
            if len(data) < 6 or vector.get("error") in ("trailing-bytes", "bad-task-id"):
                continue
            with self.subTest(vector["id"]):
                seen += 1
                if vector["result"] == "invalid":
                    self.assertEqual(self.name_of(data), vector["error"])
                else:
                    tag, metadata = decode(data)
                    self.assertEqual(tag, fields["tag"])
                    if metadata and isinstance(metadata, client.Metadata):
                        self.assertEqual((metadata.number, str(metadata.length)), (fields["number"], fields["piece_length"]))
        self.assertGreater(seen, 10)

    def name_of(self, data):
        with self.assertRaises(Rejected) as caught:
            decode(data)
        return str(caught.exception)

    def test_digests(self):
        for vector in self.found("digests"):
            if "text" not in vector:
                continue
            with self.subTest(vector["id"]):
                read = lambda: client.read_digest(vector["text"])  # noqa: B023, E731
                if vector["result"] == "malformed":
                    self.assertRaises(Rejected, read)
                elif vector["result"] != "known":
                    self.assertIsNone(read())
                else:
                    algorithm, readings = read()
                    texts = {f"{one:08x}" if algorithm == "crc32" else one for one in readings}
                    self.assertEqual(texts, set(vector["readings"]))
                    if "matches" in vector:
                        checksum = client.Checksum(vector["text"], lenient=False)
                        checksum.update(vectors.octets(vector))
                        self.assertEqual(checksum.matches(), vector["matches"])

    def test_divisions(self):
        for vector in self.found("divisions"):
            with self.subTest(vector["id"]):
                divide = lambda: client.divide(int(vector["length"]), int(vector["piece_length"]))  # noqa: B023, E731
                if vector["result"] == "invalid":
                    self.assertRaises(ValueError, divide)
                else:
                    self.assertEqual(divide(), int(vector["pieces"]))

    async def test_sessions(self):
        for vector in self.found("sessions"):
            if vector["tests"] == "server":
                continue
            with self.subTest(vector["id"]):
                await self.session(vector)

    async def session(self, vector):
        """Reads what the server sends, one request after the other. What a connection as a whole does is tested above."""
        quic = vector["transport"] == "quic"
        readers = {}
        for step in vector["steps"]:
            if step["from"] == "client":
                continue
            reader = readers.setdefault(step.get("stream", 0), asyncio.StreamReader())
            reader.feed_data(vectors.octets(step))
            end = step.get("end")
            if end == "finish" or (end == "close" and not quic):
                reader.feed_eof()
            elif end == "reset":
                reader.set_exception(Rejected("reset") if quic else ConnectionResetError())
            elif end == "close":
                for one in readers.values():
                    one.set_exception(Lost("connection lost"))
        for position, wanted in enumerate(vector["expect"]["requests"]):
            stream = wanted.get("stream", position * 4 if quic else 0)
            length = wanted.get("piece_length")
            request = Request(wanted["kind"], wanted["task_id"], wanted["number"], length and int(length), lenient=wanted.get("lenient", False))
            got = bytearray()
            read = client.read_stream if quic else client.read_answer
            reader = readers.setdefault(stream, asyncio.StreamReader())
            try:
                _, verified = await read(reader, request, lambda at, part: got.extend(part))  # noqa: B023
                outcome = "piece" if verified else "unverified"
                self.assertEqual(hashlib.sha256(got).hexdigest(), wanted["sha256"])
            except ErrorAnswer as failure:
                outcome = "error"
                self.assertEqual(failure.code, wanted["code"])
            except client.Failure as failure:
                kinds = {NoAnswer: "no-answer", GoingAway: "going-away", Lost: "lost"}
                outcome = kinds.get(type(failure), "rejected")
                if outcome == "rejected":
                    self.assertRegex(str(failure), REASONS.get(wanted["reason"], f"^{wanted['reason']}$"))
            self.assertEqual(outcome, wanted["outcome"], position)
            if outcome not in ("piece", "unverified", "error") and not quic:
                break  # the connection is gone


def decode(data):
    """One whole packet, by the same functions as an answer."""
    tag, length = client.decode_header(data[:6])
    value = data[6 : 6 + length]
    if len(value) < length:
        raise Rejected("truncated")
    if tag <= 7 and tag % 2:
        return tag, client.decode_metadata(value)
    return tag, client.decode_text(value[1:]) if tag == client.ERROR else None


if __name__ == "__main__":
    unittest.main()

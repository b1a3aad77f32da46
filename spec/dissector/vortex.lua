-- Wireshark dissector for Vortex, over TCP and over QUIC. README.md says how to use it.
--
-- Two facts shape it. Content bytes lie outside of packets, so each direction remembers how many are still to come.
-- And Vortex has no ALPN, so Wireshark never hands QUIC streams to it: it runs after all other dissectors and puts the
-- streams together itself, from the STREAM frames that Wireshark has decrypted.

local vortex = Proto("vortex", "Vortex")

local HEADER = 6
local MAX_LENGTH = 16384
local MAX_PIECE = 1073741824
local MAX_DIGEST = 256
local MAX_PARENT_ID = 1024

local TAGS = {
  [0x00] = "Download Piece", [0x01] = "Piece Content",
  [0x02] = "Download Persistent Piece", [0x03] = "Persistent Piece Content",
  [0x04] = "Download Persistent Cache Piece", [0x05] = "Persistent Cache Piece Content",
  [0x06] = "Download Cache Piece", [0x07] = "Cache Piece Content",
  [0xFE] = "Close", [0xFF] = "Error",
}
local TRAFFIC_TYPES = { [0] = "back to source", [1] = "remote peer", [2] = "local peer" }
local ERROR_CODES = { [0] = "unknown", [1] = "invalid argument", [2] = "not found", [3] = "internal" }

local f = {
  id = ProtoField.uint8("vortex.id", "Packet id"),
  tag = ProtoField.uint8("vortex.tag", "Tag", base.HEX, TAGS),
  length = ProtoField.uint32("vortex.length", "Length"),
  task_id = ProtoField.string("vortex.task_id", "Task id"),
  number = ProtoField.uint32("vortex.number", "Piece number"),
  metadata_length = ProtoField.uint32("vortex.metadata_length", "Metadata length"),
  offset = ProtoField.uint64("vortex.offset", "Offset"),
  piece_length = ProtoField.uint64("vortex.piece_length", "Piece length"),
  digest_length = ProtoField.uint32("vortex.digest_length", "Digest length"),
  digest = ProtoField.string("vortex.digest", "Digest", base.UNICODE),
  parent_id_length = ProtoField.uint32("vortex.parent_id_length", "Parent id length"),
  parent_id = ProtoField.string("vortex.parent_id", "Parent id", base.UNICODE),
  traffic_type = ProtoField.uint8("vortex.traffic_type", "Traffic type", base.DEC, TRAFFIC_TYPES),
  cost = ProtoField.uint64("vortex.cost", "Cost in seconds"),
  created_at = ProtoField.int64("vortex.created_at", "Created at, in seconds since 1970"),
  appended = ProtoField.bytes("vortex.appended", "Appended fields"),
  error_code = ProtoField.uint8("vortex.error.code", "Code", base.DEC, ERROR_CODES),
  error_message = ProtoField.string("vortex.error.message", "Message", base.UNICODE),
  skipped = ProtoField.bytes("vortex.skipped", "Value, not interpreted"),
  content = ProtoField.uint64("vortex.content", "Content bytes here"),
  content_left = ProtoField.uint64("vortex.content.left", "Content bytes still to come"),
  request_in = ProtoField.framenum("vortex.request_in", "Request in frame", base.NONE, frametype.REQUEST),
  stream = ProtoField.uint64("vortex.quic_stream", "QUIC stream"),
  decode_error = ProtoField.string("vortex.decode_error", "Decode error"),
}
vortex.fields = f

local malformed = ProtoExpert.new("vortex.malformed", "Fails to decode", expert.group.MALFORMED, expert.severity.ERROR)
local refused = ProtoExpert.new("vortex.refused", "Error packet", expert.group.RESPONSE_CODE, expert.severity.NOTE)
vortex.experts = { malformed, refused }

vortex.prefs.every_quic = Pref.bool("Every QUIC connection is Vortex", false,
  "Otherwise those to UDP port 4006 and those whose server name is d7y")

-- ------------------------------------------------------------------------------------------------------------ packets

local function is_download(tag) return tag <= 7 and tag % 2 == 0 end
local function is_content(tag) return tag <= 7 and tag % 2 == 1 end

local function tag_name(tag) return TAGS[tag] or "Reserved" end

-- Well-formed UTF-8 of RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF.
local function is_utf8(text)
  local at, size = 1, #text
  local function continues(from, count, low, high)
    for i = from, from + count - 1 do
      local byte = text:byte(i)
      if not byte or byte < low or byte > high then return false end
      low, high = 0x80, 0xBF
    end
    return true
  end
  while at <= size do
    local byte = text:byte(at)
    local more, low, high = 0, 0x80, 0xBF
    if byte >= 0xC2 and byte <= 0xDF then more = 1
    elseif byte >= 0xE0 and byte <= 0xEF then
      more = 2
      if byte == 0xE0 then low = 0xA0 elseif byte == 0xED then high = 0x9F end
    elseif byte >= 0xF0 and byte <= 0xF4 then
      more = 3
      if byte == 0xF0 then low = 0x90 elseif byte == 0xF4 then high = 0x8F end
    elseif byte >= 0x80 then return false end
    if not continues(at + 1, more, low, high) then return false end
    at = at + 1 + more
  end
  return true
end

-- A text as Wireshark can hold it: it takes NUL for the end, so the symbol for NUL stands in its place.
local function shown(range)
  return (range:raw():gsub("%z", "\xE2\x90\x80"))
end

-- Steps 2 and 3 of the decoding table: what the header alone decides.
local function header_error(tag, length)
  if length > MAX_LENGTH then return "too-long" end
  local low = is_download(tag) and 68 or is_content(tag) and 49 or tag == 0xFF and 1 or 0
  if length < low or (is_download(tag) and length > 68) then return "bad-length" end
end

-- Adds the fields of a Content packet's value. Gives the error of the first check that fails, and the piece length
-- where that much could be read.
local function add_content(value, tree)
  local size = value:len()
  tree:add(f.metadata_length, value(0, 4))
  tree:add(f.number, value(4, 4))
  tree:add(f.offset, value(8, 8))
  tree:add(f.piece_length, value(16, 8))
  tree:add(f.digest_length, value(24, 4))
  if value(0, 4):uint() ~= size - 4 then return "bad-metadata" end
  if value(16, 8):uint64() > UInt64(MAX_PIECE) then return "bad-piece-length" end
  local piece_length = value(16, 8):uint64():tonumber()

  local digest = value(24, 4):uint()
  if digest > size - 28 then return "bad-metadata", piece_length end
  if digest > MAX_DIGEST then return "field-too-long", piece_length end
  if digest > 0 then
    if not is_utf8(value(28, digest):raw()) then return "not-utf8", piece_length end
    tree:add(f.digest, value(28, digest), shown(value(28, digest)))
  else
    tree:add(f.digest, "")
  end

  local at = 28 + digest
  if size - at < 4 then return "bad-metadata", piece_length end
  tree:add(f.parent_id_length, value(at, 4))
  local parent = value(at, 4):uint()
  at = at + 4
  if parent > size - at then return "bad-metadata", piece_length end
  if parent > MAX_PARENT_ID then return "field-too-long", piece_length end
  if parent > 0 then
    if not is_utf8(value(at, parent):raw()) then return "not-utf8", piece_length end
    tree:add(f.parent_id, value(at, parent), shown(value(at, parent)))
  else
    tree:add(f.parent_id, "")
  end

  at = at + parent
  if size - at < 17 then return "bad-metadata", piece_length end
  tree:add(f.traffic_type, value(at, 1))
  tree:add(f.cost, value(at + 1, 8))
  tree:add(f.created_at, value(at + 9, 8))
  if size > at + 17 then tree:add(f.appended, value(at + 17)) end
  return nil, piece_length
end

-- Adds one packet; range covers all of it, or what there is of it when the header alone refuses it. Gives the number
-- of content bytes that follow and, where the packet does not decode, the error's name and whether boundaries are lost.
local function add_packet(range, pinfo, tree, ended)
  local tag, length = range(1, 1):uint(), range(2, 4):uint()
  local item = tree:add(vortex, range, string.format("Vortex, %s", tag_name(tag)))
  item:add(f.id, range(0, 1))
  item:add(f.tag, range(1, 1))
  item:add(f.length, range(2, 4))

  local failed, follows, info = header_error(tag, length), 0, tag_name(tag)
  if not failed and range:len() < HEADER + length then failed = ended and "truncated" end
  if not failed and length > 0 then
    local value = range(HEADER, length)
    if is_download(tag) then
      if value(0, 64):raw():find("[^0-9a-f]") then failed = "bad-task-id" end
      item:add(f.task_id, value(0, 64))
      item:add(f.number, value(64, 4))
      info = string.format("%s %d of %s…", info, value(64, 4):uint(), value(0, 8):string())
    elseif is_content(tag) then
      failed, follows = add_content(value, item)
      info = string.format("%s %d, %s bytes", info, value(4, 4):uint(), tostring(value(16, 8):uint64()))
    elseif tag == 0xFF then
      local code = value(0, 1):uint()
      item:add(f.error_code, value(0, 1))
      if length == 1 then
        item:add(f.error_message, "")
      elseif is_utf8(value(1):raw()) then
        item:add(f.error_message, value(1), shown(value(1)))
      else
        failed = "not-utf8"
      end
      info = string.format("Error %d (%s)", code, ERROR_CODES[code] or "unknown")
      item:add_proto_expert_info(refused, info)
    else
      item:add(f.skipped, value)
    end
  end
  if failed then
    item:add(f.decode_error, failed)
    item:add_proto_expert_info(malformed, failed)
    info = info .. " [" .. failed .. "]"
  end
  pinfo.cols.info:append((tostring(pinfo.cols.info) ~= "" and " | " or "") .. info)
  -- After these the place of the next packet is not known.
  local lost = failed == "too-long" or (failed ~= nil and is_content(tag) and not follows)
  return follows or 0, failed, lost, item
end

local function add_content_bytes(range, count, left, tree)
  local item = tree:add(vortex, range, string.format("Vortex, %d content bytes, %d to come", count, left))
  item:add(f.content, range, UInt64(count))
  item:add(f.content_left, UInt64(left))
  return item
end

-- ------------------------------------------------------------------------------------------------- what is remembered

-- Of TCP: by direction, what comes next; by call, what came next when that call began (to draw a frame again later).
local directions, calls
-- Of QUIC: connections by number, streams by name, what was found by frame.
local connections, streams, found
-- Requests that wait for their answer, by connection or stream, and the request's frame by the answer's frame and place.
local waiting, answered

function vortex.init()
  directions, calls, connections, streams, found, waiting, answered = {}, {}, {}, {}, {}, {}, {}
end

local function fetch(map, key, fresh)
  if not map[key] then map[key] = fresh end
  return map[key]
end

-- Requests and answers match by order, on a TCP connection and trivially on a QUIC stream.
local function match(item, tag, where, place, pinfo)
  local queue = fetch(waiting, where, {})
  local key = pinfo.number .. ":" .. place
  if not pinfo.visited then
    if is_content(tag) or tag == 0xFF or (tag > 0xEF and tag < 0xFE and tag % 2 == 1) then
      answered[key] = table.remove(queue, 1)
    elseif tag ~= 0xFE then
      table.insert(queue, pinfo.number)
    end
  end
  if answered[key] then item:add(f.request_in, answered[key]):set_generated() end
end

-- ---------------------------------------------------------------------------------------------------------------- TCP

local tcp_stream = Field.new("tcp.stream")
local tcp_fin = Field.new("tcp.flags.fin")

function vortex.dissector(tvb, pinfo, tree)
  local stream = tcp_stream()
  if not stream then return 0 end
  local connection = "tcp" .. tostring(stream.value)
  local key = connection .. " " .. tostring(pinfo.src) .. " " .. pinfo.src_port
  local call = pinfo.number .. ":" .. tvb:offset() .. ":" .. tvb:len()
  local state = fetch(directions, key, { content = 0, lost = false })
  if pinfo.visited and calls[call] then
    state = { content = calls[call].content, lost = calls[call].lost }
  else
    calls[call] = { content = state.content, lost = state.lost }
  end

  pinfo.cols.protocol = "Vortex"
  pinfo.cols.info:clear()
  local at, size = 0, tvb:len()
  while at < size do
    local here = size - at
    if state.lost then
      tree:add(vortex, tvb(at), "Vortex, bytes after a packet whose end is not known")
      return size
    elseif state.content > 0 then
      local count = math.min(here, state.content)
      state.content = state.content - count
      add_content_bytes(tvb(at, count), count, state.content, tree)
      if at == 0 then pinfo.cols.info:append(string.format("Content, %d bytes, %d to come", count, state.content)) end
      at = at + count
    else
      local fin = tcp_fin()
      local ended = fin and fin.value and true or false
      local need = HEADER
      local refused_at_once = false
      if here >= HEADER then
        local tag, length = tvb(at + 1, 1):uint(), tvb(at + 2, 4):uint()
        refused_at_once = header_error(tag, length) == "too-long"
        need = refused_at_once and HEADER or HEADER + length
      end
      if here < need and not ended then
        pinfo.desegment_offset = at
        pinfo.desegment_len = need - here
        return size
      elseif here < HEADER then
        local item = tree:add(vortex, tvb(at), "Vortex, a part of a header")
        item:add(f.decode_error, "truncated")
        item:add_proto_expert_info(malformed, "truncated")
        return size
      end
      local count = math.min(here, need)
      local follows, _, lost, item = add_packet(tvb(at, count), pinfo, tree, ended)
      match(item, tvb(at + 1, 1):uint(), connection, at .. ":" .. call, pinfo)
      state.content, state.lost = follows, lost
      at = at + count
    end
  end
  return size
end

DissectorTable.get("tcp.port"):add(4005, vortex)

-- --------------------------------------------------------------------------------------------------------------- QUIC

-- A second protocol, because a post-dissector runs for every frame. Its fields are those above.
local quic = Proto("vortex_quic", "Vortex over QUIC")

local q = {
  connection = Field.new("quic.connection.number"),
  server_name = Field.new("tls.handshake.extensions_server_name"),
  stream = Field.new("quic.stream.stream_id"),
  has_offset = Field.new("quic.stream.off"),
  offset = Field.new("quic.stream.offset"),
  fin = Field.new("quic.stream.fin"),
  data = Field.new("quic.stream_data"),
}

local function number_at(bytes, from, count)
  local number = 0
  for i = from, from + count - 1 do number = number * 256 + bytes:get_index(i) end
  return number
end

-- Takes the bytes that continue a stream, and notes the packets and content bytes that they complete.
local function feed(stream, bytes, ended, events)
  local state = stream.state
  local function take(count)
    local part = bytes:subset(0, count)
    bytes = count < bytes:len() and bytes:subset(count, bytes:len() - count) or ByteArray.new()
    return part
  end
  while bytes:len() > 0 and not state.lost do
    if state.content > 0 then
      local part = take(math.min(bytes:len(), state.content))
      state.content = state.content - part:len()
      table.insert(events, { stream = stream, content = part, left = state.content })
    else
      local need = HEADER - state.partial:len()
      if need <= 0 then
        need = HEADER + number_at(state.partial, 2, 4) - state.partial:len()
      end
      state.partial = state.partial .. take(math.min(need, bytes:len()))
      local have = state.partial:len()
      if have >= HEADER then
        local tag, length = state.partial:get_index(1), number_at(state.partial, 2, 4)
        local too_long = length > MAX_LENGTH
        if too_long or have == HEADER + length then
          local event = { stream = stream, packet = state.partial, tag = tag }
          -- Only the length is needed now; the rest is looked at when the packet is drawn.
          if too_long then
            state.lost = true
          elseif is_content(tag) and length >= 24 then
            local piece = number_at(state.partial, HEADER + 16, 8)
            if piece > MAX_PIECE then state.lost = true else state.content = piece end
          end
          state.partial = ByteArray.new()
          table.insert(events, event)
        end
      end
    end
  end
  if ended and state.partial:len() > 0 then
    table.insert(events, { stream = stream, packet = state.partial, truncated = true })
    state.partial = ByteArray.new()
  end
end

-- STREAM frames arrive in any order, twice, and overlapping.
local function arrive(stream, offset, bytes, fin, events)
  if fin then stream.size = offset + bytes:len() end
  table.insert(stream.early, { offset = offset, bytes = bytes })
  local moved = true
  while moved do
    moved = false
    for i = #stream.early, 1, -1 do
      local chunk = stream.early[i]
      local known = stream.at - chunk.offset
      if known >= chunk.bytes:len() then
        table.remove(stream.early, i)
      elseif known >= 0 then
        table.remove(stream.early, i)
        local fresh = chunk.bytes:subset(known, chunk.bytes:len() - known)
        stream.at = stream.at + fresh:len()
        feed(stream, fresh, false, events)
        moved = true
      end
    end
  end
  if stream.size == stream.at then feed(stream, ByteArray.new(), true, events) end
end

local function collect(pinfo)
  local number = q.connection()
  if not number then return end
  number = tostring(number.value)
  -- The first packet of a connection goes from the client to the server, whose address and port stay.
  local connection = fetch(connections, number, {
    server = tostring(pinfo.dst), port = pinfo.dst_port, vortex = pinfo.dst_port == 4006,
  })
  local name = q.server_name()
  if name and tostring(name.value) == "d7y" then connection.vortex = true end
  if not connection.vortex and not vortex.prefs.every_quic then return end
  local from_server = tostring(pinfo.src) == connection.server and pinfo.src_port == connection.port

  local ids, offsets = { q.stream() }, { q.offset() }
  local has_offset, fins, data = { q.has_offset() }, { q.fin() }, { q.data() }
  local events, next_offset, next_data = {}, 1, 1
  for i, id in ipairs(ids) do
    local offset = 0
    if has_offset[i] and has_offset[i].value then
      offset = offsets[next_offset].value:tonumber()
      next_offset = next_offset + 1
    end
    local fin = fins[i] ~= nil and fins[i].value
    local bytes = data[i] and data[i].len > 0 and data[i].range:bytes() or ByteArray.new()
    local key = number .. " " .. tostring(id.value) .. (from_server and " s" or " c")
    local stream = fetch(streams, key, {
      id = id.value, at = 0, early = {}, connection = number,
      state = { content = 0, lost = false, partial = ByteArray.new() },
    })
    arrive(stream, offset, bytes, fin, events)
  end
  if #events > 0 then found[pinfo.number] = events end
end

function quic.dissector(_, pinfo, tree)
  if not pinfo.visited then collect(pinfo) end
  local events = found[pinfo.number]
  if not events then return end
  pinfo.cols.protocol = "Vortex"
  pinfo.cols.info:clear()
  for place, event in ipairs(events) do
    local where = event.stream
    local item
    if event.content then
      local range = event.content:tvb("Vortex content"):range()
      item = add_content_bytes(range, range:len(), event.left, tree)
    elseif event.packet:len() < HEADER then
      item = tree:add(vortex, event.packet:tvb("Vortex packet"):range(), "Vortex, a part of a header")
      item:add(f.decode_error, "truncated")
      item:add_proto_expert_info(malformed, "truncated")
    else
      local range = event.packet:tvb("Vortex packet"):range()
      local _
      _, _, _, item = add_packet(range, pinfo, tree, event.truncated)
      match(item, range(1, 1):uint(), "quic" .. where.connection .. " " .. tostring(where.id), place, pinfo)
    end
    item:add(f.stream, where.id)
  end
end

register_postdissector(quic, true)

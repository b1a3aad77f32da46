meta:
  id: vortex
  title: Vortex, one packet
  license: Apache-2.0
  ks-version: '0.10'
  endian: be
  encoding: UTF-8
doc: |
  One packet of Vortex. The content bytes that follow a Content packet belong to no packet; value.piece_length says how many
  they are. Two rules cannot be said here, because a grammar sees one buffer: what follows the packet, and that a header is
  judged before its value has arrived.
seq:
  - id: id
    type: u1
    doc: Packet id, chosen by whoever asks. No meaning beyond that.
  - id: tag
    type: u1
  - id: length
    type: u4
    doc: Bytes of the value. Neither the header nor content bytes count.
    valid:
      expr: '_ <= 16384 and (is_download ? _ == 68 : is_content ? _ >= 49 : is_error ? _ >= 1 : true)'
  - id: value
    size: length
    type:
      switch-on: tag
      cases:
        0x00: request
        0x01: content
        0x02: request
        0x03: content
        0x04: request
        0x05: content
        0x06: request
        0x07: content
        0xff: error
        _: skipped
instances:
  is_download:
    value: tag <= 7 and tag % 2 == 0
  is_content:
    value: tag <= 7 and tag % 2 == 1
  is_error:
    value: tag == 0xff
  message:
    value: tag
    enum: messages
enums:
  messages:
    0x00: download_piece
    0x01: piece_content
    0x02: download_persistent_piece
    0x03: persistent_piece_content
    0x04: download_persistent_cache_piece
    0x05: persistent_cache_piece_content
    0x06: download_cache_piece
    0x07: cache_piece_content
    0xfe: close
    0xff: error
  traffic_types:
    0: back_to_source
    1: remote_peer
    2: local_peer
types:
  request:
    seq:
      - id: task_id_digits
        type: u1
        repeat: expr
        repeat-expr: 64
        doc: Lower-case hexadecimal digits. As text they are task_id.
        valid:
          any-of: [0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66]
      - id: number
        type: u4
    instances:
      task_id:
        pos: 0
        size: 64
        type: str
        encoding: ASCII
  content:
    seq:
      - id: metadata_length
        type: u4
        valid:
          expr: _ == _parent.length - 4
      - id: number
        type: u4
      - id: offset
        type: u8
      - id: piece_length
        type: u8
        doc: Content bytes that follow the packet.
        valid:
          max: 1073741824
      - id: digest_length
        type: u4
        valid:
          max: 256
      - id: digest
        type: str
        size: digest_length
      - id: parent_id_length
        type: u4
        valid:
          max: 1024
      - id: parent_id
        type: str
        size: parent_id_length
      - id: traffic_type
        type: u1
        enum: traffic_types
      - id: cost
        type: u8
        doc: Whole seconds.
      - id: created_at
        type: s8
        doc: Seconds since 1970-01-01T00:00:00Z.
      - id: appended
        size-eos: true
        doc: Fields of later versions.
  error:
    seq:
      - id: code
        type: u1
      - id: message
        type: str
        size-eos: true
  skipped:
    doc: The value of Close or of a reserved tag.
    seq:
      - id: skipped
        size-eos: true

//! Packets byte by byte, by hand: nothing here calls the encoder that it helps to test. Every length can be made to lie.

/// The value of a Content packet before it is bytes. `None` in a length means the true one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawContent {
    pub(crate) id: u8,
    pub(crate) tag: u8,
    /// Length of the header.
    pub(crate) length: Option<u32>,
    pub(crate) metadata_length: Option<u32>,
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) piece_length: u64,
    pub(crate) digest_length: Option<u32>,
    pub(crate) digest: Vec<u8>,
    pub(crate) parent_id_length: Option<u32>,
    pub(crate) parent_id: Vec<u8>,
    pub(crate) traffic_type: u8,
    pub(crate) cost: u64,
    pub(crate) created_at: i64,
    pub(crate) appended: Vec<u8>,
    /// Bytes to take off the end of the value, before its lengths are computed.
    pub(crate) shortened: usize,
}

impl Default for RawContent {
    fn default() -> Self {
        Self {
            id: 7,
            tag: 0x01,
            length: None,
            metadata_length: None,
            number: 3,
            offset: 12_582_912,
            piece_length: 9,
            digest_length: None,
            digest: b"crc32:3421780262".to_vec(),
            parent_id_length: None,
            parent_id: b"192.168.0.7-host-1-peer".to_vec(),
            traffic_type: 1,
            cost: 2,
            created_at: 1_700_000_000,
            appended: Vec::new(),
            shortened: 0,
        }
    }
}

impl RawContent {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let count = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let mut fields = Vec::new();
        fields.extend(self.number.to_be_bytes());
        fields.extend(self.offset.to_be_bytes());
        fields.extend(self.piece_length.to_be_bytes());
        fields.extend(self.digest_length.unwrap_or(count(&self.digest)).to_be_bytes());
        fields.extend(&self.digest);
        fields.extend(self.parent_id_length.unwrap_or(count(&self.parent_id)).to_be_bytes());
        fields.extend(&self.parent_id);
        fields.push(self.traffic_type);
        fields.extend(self.cost.to_be_bytes());
        fields.extend(self.created_at.to_be_bytes());
        fields.extend(&self.appended);
        fields.truncate(fields.len().saturating_sub(self.shortened));
        let mut value = self.metadata_length.unwrap_or(count(&fields)).to_be_bytes().to_vec();
        value.extend(fields);
        packet_of(self.id, self.tag, self.length.unwrap_or(count(&value)), &value)
    }
}

/// Header and value, where `length` need not be true.
pub(crate) fn packet_of(id: u8, tag: u8, length: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id, tag];
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes
}

/// Header and value.
pub(crate) fn packet(id: u8, tag: u8, value: &[u8]) -> Vec<u8> {
    packet_of(id, tag, u32::try_from(value.len()).unwrap(), value)
}

pub(crate) fn download(id: u8, tag: u8, task_id: &[u8], number: u32) -> Vec<u8> {
    packet(id, tag, &[task_id, &number.to_be_bytes()].concat())
}

pub(crate) fn error(id: u8, code: u8, message: &[u8]) -> Vec<u8> {
    packet(id, 0xFF, &[&[code], message].concat())
}

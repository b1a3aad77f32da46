//! What the disk promises, and what it does not.

use super::*;
use crate::rng::Seed;
use vortex_p2p::store::disk::{Disk, OpenMode};

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(Seed(seed).stream("disk"), Ledger::default())
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.mount().open(name, OpenMode::Existing).ok()?;
    let mut bytes = vec![0; file.size().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..50 {
        let disk = disk(seed);
        let file = disk.mount().open("a", OpenMode::New).unwrap();
        let lock = disk.mount().lock().unwrap();
        assert!(lock.is_some() && disk.mount().lock().unwrap().is_none());
        file.write_all_at(0, b"kept").unwrap();
        file.sync().unwrap();
        let before = disk.mount();
        before.sync_names().unwrap();
        disk.crash();
        assert!(before.rename("a", "b").is_err(), "what was mounted before the crash is of no use");
        assert_eq!(read(&disk, "a").as_deref(), Some(b"kept".as_slice()));
        assert!(file.write_all_at(0, b"late").is_err(), "a file from before the crash is of no use");
        let again = disk.mount().lock().unwrap();
        assert!(again.is_some());
        drop(lock);
        assert!(disk.mount().lock().unwrap().is_none(), "a lock from before the crash releases nothing");
    }
}

#[test]
fn what_was_not_synced_may_be_there_gone_or_torn() {
    let (mut whole, mut lost, mut torn, mut nameless) = (0, 0, 0, 0);
    for seed in 0..200 {
        let disk = disk(seed);
        let file = disk.mount().open("a", OpenMode::New).unwrap();
        file.set_len(2_048).unwrap();
        file.sync().unwrap();
        if seed % 2 == 0 {
            disk.mount().sync_names().unwrap();
        }
        file.write_all_at(0, &[1; 2_048]).unwrap();
        disk.crash();
        match read(&disk, "a") {
            None => nameless += 1,
            Some(bytes) => {
                assert_eq!(bytes.len(), 2_048);
                let ones = bytes.iter().filter(|byte| **byte == 1).count();
                assert_eq!(ones % SECTOR, 0, "sectors are written whole");
                match ones {
                    0 => lost += 1,
                    2_048 => whole += 1,
                    _ => torn += 1,
                }
            }
        }
    }
    assert!(
        [whole, lost, torn, nameless].iter().all(|count| *count > 10),
        "{whole} {lost} {torn} {nameless}"
    );
}

#[test]
fn a_name_that_was_replaced_stands_for_one_file_or_the_other() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..50 {
        let disk = disk(seed);
        for (name, bytes) in [("a", b"old"), ("b", b"new")] {
            let file = disk.mount().open(name, OpenMode::New).unwrap();
            file.write_all_at(0, bytes).unwrap();
            file.sync().unwrap();
            disk.mount().sync_names().unwrap();
        }
        disk.mount().rename("b", "a").unwrap();
        assert_eq!(read(&disk, "a").unwrap(), b"new");
        assert!(read(&disk, "b").is_none());
        disk.crash();
        match read(&disk, "a").unwrap().as_slice() {
            b"old" => old += 1,
            b"new" => new += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(old > 10 && new > 10, "{old} {new}");
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let survived = (0..100).any(|seed| {
        let disk = disk(seed);
        let file = disk.mount().open("a", OpenMode::New).unwrap();
        disk.mount().sync_names().unwrap();
        file.write_all_at(0, &[1; 512]).unwrap();
        file.write_all_at(512, &[2; 512]).unwrap();
        disk.crash();
        let bytes = read(&disk, "a").unwrap();
        bytes.starts_with(&[0; 512]) && bytes.ends_with(&[2; 512])
    });
    assert!(survived);
}

#[test]
fn full_disks_bad_sectors_and_failed_syncs_answer_with_errors() {
    let disk = disk(1);
    disk.set(Settings { capacity: 1_000, ..Settings::default() });
    let file = disk.mount().open("a", OpenMode::New).unwrap();
    file.write_all_at(0, &[1; 900]).unwrap();
    assert_eq!(file.write_all_at(900, &[1; 200]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.size().unwrap(), 1_000, "a write goes as far as there is room");
    file.write_all_at(0, &[2; 900]).unwrap();
    assert!(file.set_len(1_001).is_err());

    disk.spoil("a", 100..200);
    let mut buffer = [0; 100];
    assert!(file.read_at(150, &mut buffer).is_err());
    assert_eq!(file.read_at(200, &mut buffer).unwrap(), 100);
    file.write_all_at(50, &[3; 200]).unwrap();
    assert_eq!(file.read_at(150, &mut buffer).unwrap(), 100);

    disk.mount().sync_names().unwrap();
    file.sync().unwrap();
    disk.set(Settings { failing_syncs: 1.0, ..Settings::default() });
    file.write_all_at(0, &[9; 10]).unwrap();
    assert!(file.sync().is_err());
    disk.set(Settings::default());
    file.sync().unwrap();
    assert_eq!(read(&disk, "a").unwrap()[0], 9);
    disk.crash();
    assert_eq!(read(&disk, "a").unwrap()[0], 2, "a later sync does not save what a failed one lost");
}

#[test]
fn the_power_goes_between_a_write_and_its_sync() {
    let (mut whole, mut less) = (0, 0);
    for seed in 0..50 {
        let disk = disk(seed);
        let file = disk.mount().open("a", OpenMode::New).unwrap();
        disk.mount().sync_names().unwrap();
        let mut told = disk.cut_power_after(1);
        file.write_all_at(0, &[1; 2_048]).unwrap();
        assert!(told.try_recv().is_err());
        assert!(file.sync().is_err() && disk.mount().list().is_err(), "there is no power");
        assert_eq!((told.try_recv(), disk.outages().load(Ordering::Relaxed)), (Ok(()), 1));
        disk.crash();
        disk.power_on();
        match read(&disk, "a").unwrap().as_slice() {
            [1, ..] if read(&disk, "a").unwrap().len() == 2_048 => whole += 1,
            _ => less += 1,
        }
    }
    assert!(whole > 10 && less > 10, "{whole} {less}");
}

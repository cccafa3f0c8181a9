//! Layers that are made to do harm, as they come from a registry: a clear error, and nothing left of them.

use coracle_tests::needs_root;
use coracle_tests::registry::{Content, Registry, gzip, tar_of};

use super::{Place, app, claiming, of_layers};

/// Pulls an image of one layer, which must fail; why.
async fn refused(content: Content) -> String {
    let registry = Registry::with(content);
    Place::new().error_of(&app(&registry)).await
}

fn entry(kind: tar::EntryType, path: &[u8], target: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path);
    old.linkname[..target.len()].copy_from_slice(target);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[tokio::test]
async fn what_is_no_archive() {
    needs_root!();
    let noise = super::noise(100_000, 3);
    assert!(
        refused(claiming(std::slice::from_ref(&noise), std::slice::from_ref(&noise)))
            .await
            .contains("layer sha256:")
    );
    // Cut off within, but with the digest that was promised.
    let whole = gzip(&tar_of(&[("a", &super::noise(100_000, 4))]));
    let half = whole[..whole.len() / 2].to_vec();
    refused(claiming(&[half], &[tar_of(&[])])).await;
}

#[tokio::test]
async fn a_link_that_leads_out_and_a_file_behind_it() {
    needs_root!();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().as_os_str().as_encoded_bytes();
    let mut archive = entry(tar::EntryType::Symlink, b"way", target);
    archive.extend(tar_of(&[("way/in", b"harm")]));
    let (_, content) = of_layers(&[archive]);
    let registry = Registry::with(content);
    // Taken as within the layer, the link leads to nothing there: refused or made there, and never outside.
    let _ = Place::new().pull(&app(&registry)).await;
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let mut archive = entry(tar::EntryType::Link, b"name", b"../../../../../../../etc/passwd");
    archive.extend([0; 1024]);
    refused(of_layers(&[archive]).1).await;
}

#[tokio::test]
async fn bombs() {
    needs_root!();
    // As one file of zeros that is not sparse: it fits the disk, and is what no honest layer of its size can be.
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_mode(0o644);
    header.set_size(4 << 30);
    header.set_cksum();
    let mut zeros = zstd_frames(&[0; 1 << 20], 4 << 10);
    let mut bomb = zstd::bulk::compress(header.as_bytes(), 1).unwrap();
    bomb.append(&mut zeros);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let error = refused(claiming(&[bomb], &[tar_of(&[])])).await;
    assert!(error.contains("larger than 1073741824 bytes when decompressed"), "{error}");
}

#[tokio::test]
async fn a_window_that_is_too_large_is_no_fault_of_whoever_sends_it() {
    needs_root!();
    let archive = tar_of(&[("a", &super::noise(1 << 20, 6))]);
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &archive).unwrap();
    let error = refused(claiming(&[encoder.finish().unwrap()], &[archive])).await;
    assert!(error.contains("window of 128 MiB") && !error.contains("sent by"), "{error}");
}

/// Many frames of the same bytes, one after another.
fn zstd_frames(bytes: &[u8], count: usize) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap().repeat(count)
}

#[tokio::test]
async fn what_there_can_be_no_room_for_does_not_come() {
    needs_root!();
    let (mut image, mut content) = of_layers(&[tar_of(&[("a", b"a")]), tar_of(&[("b", b"b")])]);
    // More than any disk has.
    image.manifest["layers"][1]["size"] = serde_json::json!(1_u64 << 60);
    let descriptor = content.image(&image);
    content.tag("app", "latest", &descriptor);
    let registry = Registry::with(content);
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains("the layers that are missing: unpacking needs at least 11529"), "{error}");
    let blobs: Vec<_> = registry.lines().into_iter().filter(|line| line.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 1, "the configuration alone: {blobs:?}");
}

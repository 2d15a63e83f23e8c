// emulator_boxes_misuse.cpp: what is reported of boxes.

#include "emulator_boxes.h"

using namespace box_unit;

CASE(bytes_that_are_read_before_they_landed) {
  const auto bring = [](uint32_t to = 0) {
    init();
    if (thread_index() == 0) {
      ptx::mbarrier_expect(full(), kBoxBytes);
      issue_box(place() + to);
    }
    ptx::sync_cta();
  };
  const std::string where = "where a box of thread 0 has not landed";
  expect_box_error({"ld.shared touches shared address", where}, [=] {
    bring();
    ptx::ld_shared_16(place() + 32);
  });
  expect_box_error({"ldmatrix touches shared address", where}, [=] {
    bring();
    uint32_t d[4];
    ptx::ldmatrix_x4(d, place() + 16 * static_cast<uint32_t>(thread_index() % 32));
  });
  expect_box_error({"st.shared touches shared address", where}, [=] {
    bring();
    if (thread_index() == 1) ptx::st_shared_16(place() + kBoxBytes - 16, {});
  });
  expect_box_error({"cp.async touches shared address", where}, [=] {
    bring();
    if (thread_index() == 1) copy_16(0, twos);
    ptx::cp_async_wait<0>();
  });
  expect_box_error(
      {"wgmma touches shared address", where},
      [=] {
        clear_tiles();
        bring(8192);
        float d[8][4];
        ptx::wgmma_fence();
        issue(d);
      },
      kGroup);
}

CASE(a_place_that_a_product_in_flight_reads) {
  for (const uint32_t tile : {0u, 8192u}) {
    expect_box_error(
        {"box overwrites shared address", "which a wgmma in flight of warp"},
        [=] {
          clear_tiles();
          init();
          float d[8][4];
          ptx::wgmma_fence();
          issue(d);
          ptx::wgmma_commit();
          ptx::sync_cta();
          if (thread_index() == 0) ptx::mbarrier_expect(full(), kBoxBytes);
          if (thread_index() == 0) issue_box(place() + tile);
          ptx::wgmma_wait<0>();
          ptx::mbarrier_wait(full(), 0);
        },
        kGroup);
  }
}

CASE(a_place_beside_what_a_product_in_flight_reads) {
  in_every_schedule([] {
    pool();
    expect_group_runs([] {
      clear_tiles();
      init();
      float d[8][4];
      ptx::wgmma_fence();
      issue(d);
      ptx::wgmma_commit();
      if (thread_index() == 0) ptx::mbarrier_expect(full(), kBoxBytes);
      if (thread_index() == 0) issue_box(place() + 16384);
      ptx::wgmma_wait<0>();
      ptx::mbarrier_wait(full(), 0);
    });
  });
}

CASE(a_place_that_was_written_without_a_proxy_fence) {
  expect_box_error({"box overwrites shared address", "which thread 3 wrote"}, [] {
    init();
    if (thread_index() == 3) ptx::st_shared_16(place(), {});
    ptx::sync_cta();
    if (thread_index() == 0) ptx::mbarrier_expect(full(), kBoxBytes);
    if (thread_index() == 0) issue_box(place());
    ptx::mbarrier_wait(full(), 0);
  });
}

CASE(two_boxes_to_one_place) {
  expect_box_error({"box touches shared address", "where a box of thread 0 has not landed"}, [] {
    init();
    if (thread_index() == 0) {
      ptx::mbarrier_expect(full(), 2 * kBoxBytes);
      issue_box(place());
      issue_box(place() + 1024);
    }
    ptx::mbarrier_wait(full(), 0);
  });
}

CASE(more_bytes_than_were_expected) {
  for (const uint32_t said : {kBoxBytes - 16, kBoxBytes / 2}) {
    expect_box_error({"phase 0: all have arrived, and its boxes bring", "more than they said"},
                     [=] {
                       init();
                       if (thread_index() == 0) {
                         ptx::mbarrier_expect(full(), said);
                         issue_box(place());
                       }
                       ptx::mbarrier_wait(full(), 0);
                     });
  }
  expect_box_error({"phase 0: all have arrived, and its boxes bring 2048 bytes more"}, [] {
    init();
    if (thread_index() == 0) {
      issue_box(place());
      ptx::mbarrier_arrive(full());
    }
  });
  configure(kAscending, kLandAtIssue);
  const int code = launch(
      [] {
        init();
        if (thread_index() == 0) issue_box(place());
        if (thread_index() == 0) ptx::mbarrier_arrive(full());
      },
      32, 1, kSmem);
  const std::string text = pod_emulator_error();
  expect(code == 1 && text.find("bring 2048 bytes more") != std::string::npos, text);
}

CASE(boxes_in_flight_at_the_end) {
  expect_box_error({"1 boxes were in flight when the CTA ended"}, [] {
    init();
    if (thread_index() == 0) ptx::mbarrier_expect(full(), kBoxBytes);
    if (thread_index() == 0) issue_box(place());
  });
}

CASE(boxes_that_cannot_be) {
  const auto one = [](auto issue) {
    return [=] {
      init();
      if (thread_index() != 0) return;
      ptx::mbarrier_expect(full(), kBoxBytes);
      issue();
    };
  };
  expect_box_error({"byte 128 of a swizzle atom", "multiple of 1024"},
                   one([] { issue_box(place() + 128); }));
  expect_box_error({"box: its tile is bytes", "of dynamic memory"},
                   one([] { issue_box(place() + (63 << 10)); }));
  expect_box_error({"box from column 72 on, 64 of them: the tensor has 128"},
                   one([] { issue_box(place(), 72); }));
  expect_box_error({"box from head 2 on, 1 of them: the tensor has 2"},
                   one([] { issue_box(place(), 0, 2); }));
  expect_box_error({"box from slot 1 on, 16 of them: the tensor has 16"},
                   one([] { issue_box(place(), 0, 0, 1); }));
  expect_box_error({"box from page -1 on"}, one([] { issue_box(place(), 0, 0, 0, -1); }));
  expect_box_error({"box: no mbarrier was initialised"},
                   one([] { ptx::copy_box(place(), pool().map, 0, 0, 0, 0, full() + 8 * 2); }));
  expect_box_error({"box: the tensor map was not made by encode_boxes()"}, one([] {
                     const ptx::TensorMap map{};
                     ptx::copy_box(place(), map, 0, 0, 0, 0, full());
                   }));
  expect_box_error({"prefetch_map: the tensor map was not made"}, one([] {
                     const ptx::TensorMap map{};
                     ptx::prefetch_map(map);
                   }));
  expect_box_error({"cache policy 0x7"},
                   one([] { ptx::copy_box(place(), pool().map, 0, 0, 0, 0, full(), 7); }));
}

CASE(maps_that_cannot_be) {
  const auto refused = [](ptx::PagedPool shape, int rows, const std::string& why) {
    ptx::TensorMap map{};
    expect(ptx::encode_boxes(&map, shape, rows) == 1, "no error for " + why);
    const std::string text = ptx::error_text(1);
    expect(text.find(why) != std::string::npos, "no '" + why + "' in '" + text + "'");
  };
  const ptx::PagedPool good = pool().shape();
  ptx::PagedPool bad = good;
  refused(good, 0, "a box of 0");
  refused(good, 257, "a box of 257");
  bad.base = static_cast<const char*>(good.base) + 2;
  refused(bad, 16, "not at a multiple of 16");
  bad = good;
  bad.slot_bytes += 8;
  refused(bad, 16, "no multiple of 16");
  bad = good;
  bad.pages = 0;
  refused(bad, 16, "a size of 0");
}

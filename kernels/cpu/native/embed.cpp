// The decoder's input: rows of the token embedding, in the numbers of its file, plus positions.

#include "stored_table.h"

namespace tilewhisper {
namespace {

// x (tokens, k) = table[tokens] + positions[places], of a table (n, k) that is read as StoredTable says, and positions (m,
// k). Returns false where the file does not have the rows.
bool embed(Tensor x, std::vector<int64_t> tokens, std::vector<int64_t> places, Tensor positions, Tensor table, int64_t file,
           int64_t offset) {
    const StoredTable stored(table, file, offset);
    const auto count = static_cast<int64_t>(tokens.size());
    const int64_t k = stored.k();
    STD_TORCH_CHECK(places.size() == tokens.size(), "there must be a place for each of ", count, " tokens, got ",
                    places.size());
    check_floats(positions, 2, "positions");
    check_range(positions.size(0), 0, MAX_SIZE, "the number of positions");
    STD_TORCH_CHECK(positions.is_contiguous() && positions.size(1) == k, "positions must be contiguous rows of ", k);
    check_floats(x, 2, "x");
    STD_TORCH_CHECK(x.is_contiguous() && x.size(0) == count && x.size(1) == k, "x must be contiguous, (", count, ", ", k,
                    ")");
    for (int64_t i = 0; i < count; ++i) {
        check_range(tokens[i], 0, stored.n() - 1, "a token");
        check_range(places[i], 0, positions.size(0) - 1, "a place");
    }
    std::atomic<bool> complete{true};
    share(count, 16, [&](int64_t first, int64_t last) {
        auto* memory = static_cast<char*>(scratch(stored.row_bytes()));
        for (int64_t i = first; i < last; ++i)
            if (const char* row = stored.rows(tokens[i], 1, memory))
                kernels().add_stored(floats(positions) + places[i] * k, row, stored.numbers(), k, mutable_floats(x) + i * k);
            else
                complete = false;
    });
    return complete;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tilewhisper_native, m) {
    m.def("embed(Tensor(a!) x, int[] tokens, int[] places, Tensor positions, Tensor table, int file, int offset) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(tilewhisper_native, CPU, m) { m.impl("embed", BOXED(&embed)); }

}  // namespace tilewhisper

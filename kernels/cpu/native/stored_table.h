// A table in the numbers of its file, of which single rows are needed.
//
// They are read from the file one at a time rather than through its mapping: pages that are read through a mapping stay in
// the process's memory, 64 KB around each row. The LM head's rows of an hour of base took 53 MB.
#pragma once

#ifndef _WIN32
#include <unistd.h>

#include <cerrno>
#endif
#include <limits>

#include "ops.h"

namespace tilewhisper {

class StoredTable {
   public:
    // `table` (n, k) of float32, float16 or bfloat16 need not be aligned to its numbers. Where `file` is a descriptor and
    // not -1, its rows are read from there, the first at `offset` bytes, and not from its memory, which is their mapping.
    StoredTable(const Tensor& table, int64_t file, int64_t offset) : file_(static_cast<int>(file)), offset_(offset) {
        STD_TORCH_CHECK(table.is_cpu() && table.dim() == 2 && (table.size(1) == 1 || table.stride(1) == 1),
                        "the table must have two dimensions, be on the CPU, and contiguous in its last dimension");
        check_range(table.size(0), 0, MAX_SIZE, "the table's rows");
        check_range(table.size(1), 1, MAX_SIZE, "the table's columns");
        switch (table.scalar_type()) {
            case ScalarType::Float: numbers_ = Number::FLOAT32; break;
            case ScalarType::Half: numbers_ = Number::FLOAT16; break;
            case ScalarType::BFloat16: numbers_ = Number::BFLOAT16; break;
            default: STD_TORCH_CHECK(false, "the table must be float32, float16 or bfloat16");
        }
        check_range(file, -1, std::numeric_limits<int>::max(), "the file");
        check_range(offset, 0, MAX_NUMBERS, "the offset");
        const int64_t number_bytes = numbers_ == Number::FLOAT32 ? 4 : 2;
        n_ = table.size(0), k_ = table.size(1);
        row_bytes_ = k_ * number_bytes;
        stride_ = in_file() ? row_bytes_ : table.stride(0) * number_bytes;
        data_ = static_cast<const char*>(table.data_ptr());
    }

    int64_t n() const { return n_; }
    int64_t k() const { return k_; }
    Number numbers() const { return numbers_; }
    int64_t row_bytes() const { return row_bytes_; }
    int64_t stride() const { return stride_; }  // from one row to the next, in bytes, where `rows` has them

    // `count` rows from row `first` on: where they are in memory, or in `to` once they are read; null where the file does
    // not have them.
    const char* rows(int64_t first, int64_t count, char* to) const {
        if (!in_file()) return data_ + first * stride_;
        const int64_t bytes = count * row_bytes_;
        for (int64_t done = 0; done < bytes;) {
            const int64_t more = read(to + done, bytes - done, offset_ + first * row_bytes_ + done);
            if (more <= 0) return nullptr;
            done += more;
        }
        return to;
    }

   private:
    bool in_file() const { return file_ != -1; }

    // How many bytes it read: none at the file's end or where it cannot be read.
    int64_t read(void* to, int64_t bytes, int64_t from) const {
#ifdef _WIN32  // has no pread, and no caller that has a descriptor (see models/mapped_file.py)
        return 0;
#else
        ssize_t count;
        do count = pread(file_, to, bytes, from);
        while (count < 0 && errno == EINTR);
        return count;
#endif
    }

    int file_;
    int64_t offset_, n_, k_, row_bytes_, stride_;
    const char* data_;
    Number numbers_;
};

}  // namespace tilewhisper

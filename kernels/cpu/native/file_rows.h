// Rows of a table in a file, read one at a time without mapping them: pages that are read through a mapping stay in the
// process's memory, 64 KB around each row. The LM head's rows of an hour of base took 53 MB.
#pragma once

#ifndef _WIN32
#include <unistd.h>

#include <cerrno>
#endif

#include "ops.h"

namespace tilewhisper {

class FileRows {
   public:
    // `file` is a descriptor, open for reading; the first row starts at `offset` bytes.
    FileRows(int64_t file, int64_t offset, int64_t row_bytes)
        : file_(static_cast<int>(file)), offset_(offset), bytes_(row_bytes) {}

    // A row's bytes in this thread's scratch memory, until that is used again; null where the file does not have them.
    const void* operator()(int64_t row) const {
        auto* memory = static_cast<char*>(scratch(bytes_));
        for (int64_t done = 0; done < bytes_;) {
            const int64_t more = read(memory + done, bytes_ - done, offset_ + row * bytes_ + done);
            if (more <= 0) return nullptr;
            done += more;
        }
        return memory;
    }

   private:
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
    int64_t offset_, bytes_;
};

}  // namespace tilewhisper

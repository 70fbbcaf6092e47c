// How the host calls a micro-kernel.
#include <aie_api/aie.hpp>

namespace {

using Address = std::uintptr_t;

void call(void (*kernel)(), unsigned count, const Address* a) {
    if (count == 1) {
        reinterpret_cast<void (*)(Address)>(kernel)(a[0]);
    }
    if (count == 2) {
        reinterpret_cast<void (*)(Address, Address)>(kernel)(a[0], a[1]);
    }
    if (count == 3) {
        reinterpret_cast<void (*)(Address, Address, Address)>(kernel)(a[0], a[1], a[2]);
    }
    if (count == 4) {
        reinterpret_cast<void (*)(Address, Address, Address, Address)>(kernel)(a[0], a[1], a[2], a[3]);
    }
}

}  // namespace

// Call a kernel `times` times on `count` objects (address and bytes of each); those with `advances` are the next ones at
// each call. Each call begins as after power-up. Returns the number of loads and stores outside the objects, or misaligned
// (0 without MODEL_CHECKED).
extern "C" unsigned model_call(void (*kernel)(), unsigned times, unsigned count, Address* objects, const std::size_t* bytes,
                               const bool* advances) {
    aie::model::invalid = 0;
    for (unsigned i = 0; i < times; ++i) {
        aie::set_rounding(aie::rounding_mode::floor);
        aie::model::buffers.fill({});
        for (unsigned j = 0; j < count; ++j) {
            aie::model::buffers[j] = {objects[j], objects[j] + bytes[j]};
        }
        call(kernel, count, objects);
        for (unsigned j = 0; j < count; ++j) {
            objects[j] += advances[j] ? bytes[j] : 0;
        }
    }
    return aie::model::invalid;
}

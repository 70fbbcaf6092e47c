// Errors on their way from an operator to torch. The library in a wheel has a C++ runtime of its own, and an exception of
// one runtime means nothing to another: C++ exceptions of this library stay in it, and torch raises its own, as
// RuntimeError.
#pragma once

#include <torch/csrc/stable/library.h>

#include <exception>
#include <string>

namespace tilewhisper {

using Boxed = void (*)(StableIValue*, uint64_t, uint64_t);

// Runs an operator. Returns its error, or null; the text lasts until this thread's next error.
template <Boxed OPERATOR>
__attribute__((noinline)) const char* error_of(StableIValue* stack, uint64_t arguments, uint64_t results) noexcept {
    thread_local std::string message;
    try {
        OPERATOR(stack, arguments, results);
        return nullptr;
    } catch (const std::exception& error) {
        message = error.what();
    } catch (...) {
        message = "an unknown error";
    }
    return message.c_str();
}

// torch's exception passes through this function, which therefore has nothing to destroy.
template <Boxed OPERATOR>
void report_errors(StableIValue* stack, uint64_t arguments, uint64_t results) {
    if (const char* error = error_of<OPERATOR>(stack, arguments, results)) aoti_torch_check(false, "", "", 0, error);
}

}  // namespace tilewhisper

// The function to register as an operator's implementation; TORCH_BOX alone lets exceptions out.
#define BOXED(function) &tilewhisper::report_errors<&TORCH_BOX(function)>

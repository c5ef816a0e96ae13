// What every function of the C interface has in common: 0 and a result in the last argument, or -1 and the reason in
// restok_last_error().
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

#define EXPORTED extern "C" __attribute__((visibility("hidden")))

namespace restok {

extern thread_local std::string last_error;

template <typename Body>
int guarded(Body&& body) {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    last_error = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "unknown C++ exception";
  }
  return -1;
}

} // namespace restok

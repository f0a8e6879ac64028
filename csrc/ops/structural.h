#pragma once
#include "ir/structural.h"

/* Classifies texts with ExecuTorch, as io.pocketbert.host.answer describes: the folder of a bundle, a scratch folder. */
package io.pocketbert.executorch

import io.pocketbert.host.answer
import java.io.File

fun main(arguments: Array<String>) {
    val (bundle, scratch) = arguments.map(::File)
    answer(ExecuTorchEngine.kind(2), bundle, scratch)
}
